//! The pair that is in force, and what follows its files.

use std::fmt;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::server::tls::pair::PairError;
use crate::server::tls::pair::PairFiles;
use crate::server::tls::pair::PairText;
use crate::telemetry::arrivals::CertificateRefused;
use crate::telemetry::arrivals::CertificateTaken;

/// The pair of certificate and key in force. Copies are the same keeper.
#[derive(Clone)]
pub struct Keeper(Arc<Kept>);

struct Kept {
    files: PairFiles,
    /// Read once for each handshake, and replaced now and then.
    held: RwLock<Held>,
    /// Asks for a look before it is due.
    look: Notify,
}

/// A pair, and what it was made of.
struct Held {
    config: Arc<ServerConfig>,
    text: PairText,
}

/// What was found in the files at one look.
#[derive(PartialEq)]
enum Found {
    Text(PairText),
    Error(PairError),
}

impl Keeper {
    /// Reads the pair for the first time.
    ///
    /// # Errors
    ///
    /// Which file is to be mended, and how.
    pub fn load(files: &PairFiles) -> Result<Self, PairError> {
        let text = files.read()?;
        let pair = files.pair(&text)?;
        CertificateTaken { file: &files.certificate, not_after: pair.not_after }.emit();
        let held = RwLock::new(Held { config: pair.config, text });
        Ok(Self(Arc::new(Kept { files: files.clone(), held, look: Notify::new() })))
    }

    /// Returns what a handshake that begins now uses.
    pub(in crate::server) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.held.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Asks for a look at the files now, without waiting for it.
    pub fn reload_now(&self) {
        self.0.look.notify_one();
    }

    /// Looks at the files every few seconds, for as long as it is polled.
    ///
    /// What they hold is compared, not their dates: Kubernetes exchanges a whole
    /// folder behind a link. A good pair is taken as soon as it is seen. A bad one
    /// is complained of when two looks have found the same, for the two files may
    /// be read between one and the other being written, and then once.
    pub(in crate::server) async fn watch(self) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = None;
        let mut told = None;
        loop {
            select! {
                _ = ticks.tick() => {}
                () = self.0.look.notified() => {}
            }
            let found = self.look();
            if told.as_ref() == Some(&found) {
                continue;
            }
            match self.take(&found) {
                Ok(()) => (before, told) = (None, None),
                Err(error) if before.as_ref() == Some(&found) => {
                    CertificateRefused { error: &error.text }.emit();
                    told = Some(found);
                }
                Err(_) => before = Some(found),
            }
        }
    }

    fn look(&self) -> Found {
        match self.0.files.read() {
            Ok(text) => Found::Text(text),
            Err(error) => Found::Error(error),
        }
    }

    /// Puts what was found in force, unless it is so already.
    fn take(&self, found: &Found) -> Result<(), PairError> {
        let text = match found {
            Found::Text(text) => text,
            Found::Error(error) => return Err(error.clone()),
        };
        if self.0.held.read().unwrap_or_else(PoisonError::into_inner).text == *text {
            return Ok(());
        }
        let pair = self.0.files.pair(text)?;
        let held = Held { config: pair.config, text: text.clone() };
        *self.0.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        CertificateTaken { file: &self.0.files.certificate, not_after: pair.not_after }.emit();
        Ok(())
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("files", &self.0.files).finish_non_exhaustive()
    }
}

/// How often the files are looked at: two small reads.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
