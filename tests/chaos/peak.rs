//! The most that a replica told of one series while something went on: a gauge that
//! rose may be down again when it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::replica::metrics_of;

/// Looks at the metrics of all replicas again and again, on a thread of its own.
pub struct Peak {
    most: Arc<Mutex<f64>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peak {
    /// Begins to look at a series; a replica that does not answer tells nothing.
    pub fn watch(replicas: Vec<SocketAddr>, series: &'static str) -> Self {
        let (most, stop) = (Arc::<Mutex<f64>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (most, stop) = (Arc::clone(&most), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let told = replicas.iter().filter_map(|r| metrics_of(*r).remove(series));
                    let now = told.fold(0.0, f64::max);
                    let mut most = most.lock().expect("no panic");
                    *most = most.max(now);
                    drop(most);
                    thread::sleep(LOOK_INTERVAL);
                }
            }
        });
        Self { most, stop, thread: Some(thread) }
    }

    /// Returns the most that any replica has told so far.
    pub fn most(&self) -> f64 {
        *self.most.lock().expect("no panic")
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within a look.
            let _ = thread.join();
        }
    }
}

const LOOK_INTERVAL: Duration = Duration::from_millis(200);
