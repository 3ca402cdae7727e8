//! A process that is measured or helps to measure.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::process::CommandExt as _;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

use crate::machine;
use crate::machine::Core;

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program on a core. It ends with this thread at the latest.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub fn start(mut command: Command, core: Core) -> Result<Self> {
        // SAFETY: what is called between fork and exec are plain system calls.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                machine::pin_this_thread(core).map_err(std::io::Error::other)
            });
        }
        let child = command.spawn().with_context(|| format!("{command:?} can't be started"))?;
        Ok(Self { child })
    }

    /// Starts this very program in another role.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub fn start_role(arguments: &[String], core: Core) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        Self::start(command, core)
    }

    /// Waits for the first line that the process prints.
    ///
    /// # Errors
    ///
    /// When it ends without one.
    pub fn first_line(&mut self) -> Result<String> {
        let out = self.child.stdout.take().context("its output is not piped")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the process ended before it was ready");
        Ok(line.trim().to_owned())
    }

    /// Says whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns the CPU time that the process has used so far.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn cpu(&self) -> Result<Duration> {
        machine::cpu_of(self.child.id())
    }

    /// Returns the bytes of memory that are resident.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.memory("smaps_rollup", "Rss:")
    }

    /// Returns the most bytes that ever were resident.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn resident_most_bytes(&self) -> Result<u64> {
        self.memory("status", "VmHWM:")
    }

    fn memory(&self, file: &str, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/{file}", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.with_context(|| format!("{path} has no {name}"))?.parse()?;
        Ok(kilobytes << 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What has ended already needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
