//! The surroundings that listeners run in.

use std::future::Future;

use actix_web::rt::System;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

/// Runs `future` to its end on this thread, with what listeners need around it;
/// their workers have threads of their own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    System::new().block_on(future)
}

/// Asks the system for as many descriptors as it gives this process, for each
/// connection needs one; returns how many that is, or `None` where there is no
/// limit. Many systems give 1,024 to who does not ask.
pub fn raise_descriptor_limit() -> Option<u64> {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: given.maximum, maximum: given.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => given.maximum,
        Err(_) => given.current,
    }
}
