//! Writes what happens in the demo's world into Kafka, at the world's pace.

use std::io;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;

use crate::app::demo::world::Draft;
use crate::app::demo::world::STEP;
use crate::app::demo::world::World;
use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::kafka::producer::NewRecord;
use crate::kafka::producer::RecordProducer;

/// The thread that writes; dropping it ends it.
#[derive(Debug)]
pub struct Generator {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    /// Writes a world's past at once, so that there is something to read from the
    /// beginning, and then goes on with it.
    ///
    /// # Errors
    ///
    /// When the past can't be written, or the system gives no thread.
    pub fn start(config: &KafkaConfig, mut world: World) -> anyhow::Result<Self> {
        let producer = RecordProducer::new(config)?;
        for _ in 0..PAST_STEPS {
            write(&producer, &world.step())?;
        }
        producer.flush(FLUSH_MAX)?;
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let thread = spawn(move || run(&producer, world, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told; there is nothing left to end.
            let _ = thread.join();
        }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("demo-generator".to_owned()).spawn(run)
}

fn run(producer: &RecordProducer, mut world: World, stopped: &Receiver<()>) {
    let mut due = Instant::now();
    loop {
        // A machine that slept does not make up for it in one burst.
        due = (due + STEP).max(Instant::now() - LAG_MAX);
        if stopped.recv_deadline(due) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if let Err(error) = write(producer, &world.step()) {
            eprintln!("the generator stopped: {error}");
            return;
        }
    }
}

fn write(producer: &RecordProducer, drafts: &[Draft]) -> Result<(), KafkaError> {
    for Draft { topic, key, value, tenant } in drafts {
        let header = tenant.map(|tenant| (TENANT_HEADER, tenant.as_bytes()));
        let record = NewRecord {
            partition: None,
            key: Some(key.as_bytes()),
            value: value.as_ref().map(String::as_bytes),
            headers: header.as_slice(),
        };
        producer.send(topic, &record)?;
    }
    Ok(())
}

/// The header that says whose a record is; `brucke.toml` names it too.
const TENANT_HEADER: &str = "tenant-id";
/// How much of the world has happened before anybody looks: two minutes.
const PAST_STEPS: usize = 1_200;
const FLUSH_MAX: Duration = Duration::from_secs(10);
/// How far the generator may fall behind before it skips time.
const LAG_MAX: Duration = Duration::from_secs(1);
