//! What operators ask of workers, and how it comes to their threads.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::delivery::view::Answer;
use crate::delivery::view::Question;

/// A question to one worker, and where its answer goes.
#[derive(Debug)]
pub(in crate::server) struct Inquiry {
    pub(in crate::server) question: Question,
    pub(in crate::server) reply: oneshot::Sender<Answer>,
}

/// The way to all workers of a listener.
#[derive(Debug, Clone)]
pub struct Workers(Vec<mpsc::Sender<Inquiry>>);

/// A worker did not answer: it has too much to do, or is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("worker {worker} does not answer")]
pub struct Unanswered {
    pub worker: usize,
}

impl Workers {
    /// Returns the way to so many workers, and the end of each of them.
    pub(in crate::server) fn new(count: u16) -> (Self, Vec<mpsc::Receiver<Inquiry>>) {
        let (senders, receivers) = (0..count).map(|_| mpsc::channel(INQUIRIES_MAX)).unzip();
        (Self(senders), receivers)
    }

    /// Returns how many workers there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Asks one worker.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] when it has many questions before this, or does not get on.
    pub async fn ask(&self, worker: usize, question: Question) -> Result<Answer, Unanswered> {
        let unanswered = Unanswered { worker };
        let sender = self.0.get(worker).ok_or(unanswered)?;
        let (reply, answer) = oneshot::channel();
        sender.try_send(Inquiry { question, reply }).map_err(|_| unanswered)?;
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(unanswered),
        }
    }

    /// Asks all workers the same, one after the other.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] for the first that does not answer.
    pub async fn ask_all(&self, question: &Question) -> Result<Vec<Answer>, Unanswered> {
        let mut answers = Vec::with_capacity(self.count());
        for worker in 0..self.count() {
            answers.push(self.ask(worker, question.clone()).await?);
        }
        Ok(answers)
    }
}

/// Questions that may wait at one worker; one more is refused.
const INQUIRIES_MAX: usize = 16;
/// How long a worker may take, which answers between two turns of its work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
