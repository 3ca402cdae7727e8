//! The surroundings that listeners run in.

use std::future::Future;

use actix_web::rt::System;

/// Runs `future` to its end on this thread, with what listeners need around it;
/// their workers have threads of their own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    System::new().block_on(future)
}
