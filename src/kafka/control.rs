//! The thread that runs the intake, and the start and end of all others.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::select;

use crate::kafka::admin::Admin;
use crate::kafka::admin::Question;
use crate::kafka::answer::Answer;
use crate::kafka::client;
use crate::kafka::client::RenewedClient;
use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::kafka::history::Chunk;
use crate::kafka::history::HistoryReader;
use crate::kafka::history::Place;
use crate::kafka::inbox::AssignmentId;
use crate::kafka::inbox::Inbox;
use crate::kafka::reader::Assignment;
use crate::kafka::reader::Order;
use crate::kafka::reader::Reader;
use crate::kafka::status::KafkaStatus;
use crate::kafka::status::Role;
use crate::registry::directory::Directory;
use crate::registry::intake::Intake;
use crate::registry::message::Command;
use crate::registry::message::Task;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;

/// The running Kafka side; dropping it stops its threads and waits for them.
#[derive(Debug)]
pub struct KafkaHandle {
    status: Arc<KafkaStatus>,
    /// Dropped to stop the control thread, which then stops the others.
    stop: Option<Sender<()>>,
    inbox: Arc<Inbox>,
    threads: Vec<JoinHandle<()>>,
}

impl KafkaHandle {
    /// Returns what readiness and metrics want to know.
    pub fn status(&self) -> &Arc<KafkaStatus> {
        &self.status
    }

    /// Starts a thread whose failure the status tells of.
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let watch = Watch { name: name.to_owned(), status: Arc::clone(&self.status) };
        let run = move || {
            let _watch = watch;
            run();
        };
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }
}

impl Drop for KafkaHandle {
    fn drop(&mut self) {
        self.stop = None;
        self.inbox.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; the others still end.
            let _ = thread.join();
        }
    }
}

/// Starts the threads of the Kafka side.
///
/// # Errors
///
/// When the configuration is refused or the system gives no thread. Brokers that
/// do not answer are no error: they are asked again, and readiness says so.
pub fn start(
    config: &KafkaConfig,
    intake: Intake,
    directory: Arc<Directory>,
    commands: Receiver<Command>,
) -> Result<KafkaHandle, KafkaError> {
    config.validate()?;
    let status = Arc::new(KafkaStatus::default());
    let inbox = Arc::new(Inbox::default());
    // Answers are bounded by the questions, and the intake asks each once.
    let (answer, answers) = crossbeam_channel::unbounded();
    let (stop, stopped) = crossbeam_channel::bounded(0);
    // From here on a failure drops the handle, which ends what was started.
    let mut handle = KafkaHandle {
        status: Arc::clone(&status),
        stop: Some(stop),
        inbox: Arc::clone(&inbox),
        threads: Vec::new(),
    };
    let reader = Reader::new(
        config.live(),
        Arc::clone(&inbox),
        Arc::clone(&directory),
        Arc::clone(&status),
        answer.clone(),
        config.sampler.clone(),
    )?;
    handle.spawn("kafka-reader", move || reader.run())?;
    let mut readers = Vec::new();
    for index in 0..config.history_readers.max(1) {
        let (chunk, chunks) = crossbeam_channel::bounded(1);
        let client = RenewedClient::connect(config.history(), &status, Role::History)?;
        let (directory, status) = (Arc::clone(&directory), Arc::clone(&status));
        let (answer, sampler) = (answer.clone(), config.sampler.clone());
        let reader = HistoryReader::new(index, client, chunks, answer, directory, status, sampler);
        handle.spawn(&format!("kafka-history-{index}"), move || reader.run())?;
        readers.push(HistoryThread { chunk, state: Sweeping::Idle(None) });
    }
    // Questions are bounded by what the intake waits for: each is asked once.
    let (question, questions) = crossbeam_channel::unbounded();
    let client = client::connect(&config.admin(), &status, Role::Admin)?;
    let admin = Admin::new(client, config, questions, answer, Arc::clone(&status));
    for index in 0..ADMIN_THREADS {
        let admin = admin.clone();
        handle.spawn(&format!("kafka-admin-{index}"), move || admin.run())?;
    }
    let control = Control {
        intake,
        commands,
        answers,
        stopped,
        question,
        inbox,
        readers,
        waiting: VecDeque::new(),
        assignments: BTreeMap::new(),
        assignment_next: 0,
        status,
    };
    handle.spawn("kafka-control", move || control.run())?;
    Ok(handle)
}

/// Tells the status when its thread panics.
struct Watch {
    name: String,
    status: Arc<KafkaStatus>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.status.thread_failed(&self.name);
        }
    }
}

/// Carries tasks out and answers back; it never asks Kafka itself.
struct Control {
    intake: Intake,
    commands: Receiver<Command>,
    answers: Receiver<Answer>,
    stopped: Receiver<()>,
    question: Sender<Question>,
    inbox: Arc<Inbox>,
    readers: Vec<HistoryThread>,
    /// Chunks for which no reader is free; the intake asks for no more than
    /// there are readers.
    waiting: VecDeque<Chunk>,
    /// The assignments in force: what an earlier one reports is out of date.
    assignments: BTreeMap<(SourceId, PartitionId), AssignmentId>,
    assignment_next: u64,
    status: Arc<KafkaStatus>,
}

/// A reader of history as the control thread sees it.
struct HistoryThread {
    chunk: Sender<Chunk>,
    state: Sweeping,
}

enum Sweeping {
    /// It stands at this place, if it has read anything.
    Idle(Option<Place>),
    /// It reads, and will stand at the offset that it answers.
    Busy(Place),
}

impl Control {
    fn run(mut self) {
        self.intake.handle_timeout(Instant::now());
        let mut tell_at = Instant::now();
        loop {
            self.carry_out();
            let now = Instant::now();
            if tell_at <= now {
                self.status.set_sweeps(self.intake.sweeps(SWEEPS_TOLD_MAX));
                tell_at = now + TELL_INTERVAL;
            }
            let deadline = self.intake.next_deadline().unwrap_or(now + WAIT_MAX).min(tell_at);
            select! {
                recv(self.stopped) -> _ => return,
                recv(self.answers) -> answer => match answer {
                    Ok(answer) => self.take_answer(answer),
                    // All that could answer have gone.
                    Err(_) => return,
                },
                recv(self.commands) -> command => match command {
                    Ok(command) => self.intake.handle_command(command, Instant::now()),
                    // Nobody can want anything any more.
                    Err(_) => return,
                },
                default(deadline.saturating_duration_since(now)) => {}
            }
            self.take_what_waits();
            let now = Instant::now();
            if self.intake.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.intake.handle_timeout(now);
            }
        }
    }

    /// Takes what else has come, so that one reader's order holds the fruit of
    /// many commands.
    fn take_what_waits(&mut self) {
        for _ in 0..INPUTS_PER_ROUND {
            if let Ok(answer) = self.answers.try_recv() {
                self.take_answer(answer);
            } else if let Ok(command) = self.commands.try_recv() {
                self.intake.handle_command(command, Instant::now());
            } else {
                return;
            }
        }
    }

    fn take_answer(&mut self, answer: Answer) {
        let now = Instant::now();
        match answer {
            Answer::Described { topic, result } => {
                self.intake.handle_described(&topic, result, now);
            }
            Answer::Offsets { request, result } => {
                self.intake.handle_offsets(request, result, now);
            }
            Answer::ReadStopped { assignment, source, partition, error } => {
                if self.assignments.get(&(source, partition)) == Some(&assignment) {
                    self.assignments.remove(&(source, partition));
                    self.intake.handle_read_error(source, partition, error, now);
                }
            }
            Answer::History { reader, source, partition, result } => {
                let thread = &mut self.readers[reader];
                let idle = Sweeping::Idle(None);
                let stood = std::mem::replace(&mut thread.state, idle);
                if let (Sweeping::Busy(mut place), Ok(to)) = (stood, &result) {
                    place.offset = *to;
                    thread.state = Sweeping::Idle(Some(place));
                }
                self.intake.handle_history(source, partition, result, now);
            }
        }
    }

    /// Hands every task of the intake's to the thread that can do it.
    fn carry_out(&mut self) {
        let mut orders = Vec::new();
        while let Some(task) = self.intake.poll_task() {
            match task {
                Task::Describe { topics } => self.ask(Question::Describe { topics }),
                Task::ListOffsets(question) => self.ask(Question::ListOffsets(question)),
                Task::Assign { source, topic, partition, through } => {
                    let id = AssignmentId(self.assignment_next);
                    self.assignment_next += 1;
                    self.assignments.insert((source, partition.id()), id);
                    let at = partition.end();
                    let assignment = Assignment { id, source, topic, partition, at, through };
                    orders.push(Order::Assign(assignment));
                }
                Task::Unassign { source, topic, partition } => {
                    self.assignments.remove(&(source, partition));
                    orders.push(Order::Unassign { source, topic, partition });
                }
                Task::ReadHistory { source, topic, partition, from, until } => {
                    let chunk = Chunk { source, topic, partition, from, until };
                    self.waiting.push_back(chunk);
                }
            }
        }
        if !orders.is_empty() {
            self.inbox.order(orders);
        }
        while let Some(chunk) = self.waiting.pop_front() {
            let place = place_of(&chunk);
            let Some(reader) = choose(self.readers.iter().map(|reader| &reader.state), &place)
            else {
                self.waiting.push_front(chunk);
                return;
            };
            let thread = &mut self.readers[reader];
            thread.state = Sweeping::Busy(place);
            // Its thread ends only with this one; what it can't take is asked
            // for by nobody any more.
            let _ = thread.chunk.try_send(chunk);
        }
    }

    fn ask(&self, question: Question) {
        // The admin threads end only when this sender does.
        let _ = self.question.send(question);
    }
}

/// Chooses a free reader of history: the one that stands at the place, else one
/// that stands nowhere, else any.
fn choose<'a>(readers: impl Iterator<Item = &'a Sweeping>, place: &Place) -> Option<usize> {
    let cost = |state: &Sweeping| match state {
        Sweeping::Idle(Some(at)) if at == place => Some(0),
        Sweeping::Idle(None) => Some(1),
        Sweeping::Idle(Some(_)) => Some(2),
        Sweeping::Busy(_) => None,
    };
    let free = readers.enumerate().filter_map(|(index, state)| Some((cost(state)?, index)));
    free.min().map(|(_, index)| index)
}

fn place_of(chunk: &Chunk) -> Place {
    Place { topic: chunk.topic.clone(), partition: chunk.partition.id(), offset: chunk.from.offset }
}

/// How long the thread sleeps when the intake has no deadline.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often the status is told how far the sweeps are.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Sweeps that are told one by one.
const SWEEPS_TOLD_MAX: usize = 1_000;
/// Inputs that are taken before their tasks are carried out.
const INPUTS_PER_ROUND: usize = 10_000;
/// Threads whose calls to Kafka may block at the same time.
const ADMIN_THREADS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::Offset;
    use crate::types::ids::TopicName;

    fn place(partition: usize) -> Place {
        let partition = PartitionId::from_index(partition);
        Place { topic: TopicName::new("t"), partition, offset: Offset::ZERO }
    }

    #[test]
    fn a_sweep_goes_on_at_the_reader_that_stands_there() {
        let check = |readers: &[Sweeping], chosen| {
            assert_eq!(choose(readers.iter(), &place(0)), chosen);
        };
        let elsewhere = || Sweeping::Idle(Some(place(1)));
        let there = || Sweeping::Idle(Some(place(0)));
        check(&[Sweeping::Idle(None), elsewhere(), there()], Some(2));
        check(&[elsewhere(), Sweeping::Idle(None)], Some(1));
        check(&[Sweeping::Busy(place(0)), elsewhere()], Some(1));
        check(&[Sweeping::Busy(place(0)), Sweeping::Busy(place(1))], None);
    }
}
