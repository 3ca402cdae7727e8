//! What operators ask of workers, what a reload brings them, and how both come to
//! their threads.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::delivery::view::Answer;
use crate::delivery::view::Question;
use crate::server::settings::Terms;

/// What one worker is asked, and where its answer goes.
#[derive(Debug)]
pub(in crate::server) enum Inquiry {
    Question(Question, oneshot::Sender<Answer>),
    /// Other terms; answered by how many subscriptions they ended.
    Terms(Box<Terms>, oneshot::Sender<usize>),
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
        sender.try_send(Inquiry::Question(question, reply)).map_err(|_| unanswered)?;
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

    /// Has all workers serve by other terms; returns how many subscriptions those
    /// ended once all do. A worker that is busy is waited for.
    pub async fn take_terms(&self, terms: &Terms) -> usize {
        let mut replies = Vec::with_capacity(self.count());
        for sender in &self.0 {
            let (reply, ended) = oneshot::channel();
            // A worker is no more only when the process is about to end.
            if sender.send(Inquiry::Terms(Box::new(terms.clone()), reply)).await.is_ok() {
                replies.push(ended);
            }
        }
        let mut sum = 0;
        for ended in replies {
            sum += ended.await.unwrap_or_default();
        }
        sum
    }
}

/// Questions that may wait at one worker; one more is refused.
const INQUIRIES_MAX: usize = 16;
/// How long a worker may take, which answers between two turns of its work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
