//! The machine: what it is, its cores, its limits, its clock.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

/// Which core a process is to run on, where there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// The core of what is measured.
    Server,
    /// The core of all that only helps to measure: clients, Kafka, the producer.
    Client,
}

/// Binds this thread, and the threads and processes that it starts from now on.
///
/// # Errors
///
/// When the system refuses.
pub fn pin_this_thread(core: Core) -> Result<()> {
    if cores() < 2 {
        return Ok(());
    }
    let wanted = match core {
        Core::Server => 0,
        Core::Client => 1,
    };
    // SAFETY: an empty set is all zeroes, and `CPU_SET` writes within it.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(wanted, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    ensure!(done == 0, "the core can't be chosen: {}", io::Error::last_os_error());
    Ok(())
}

/// Lets whatever else wants this thread's core go first.
///
/// # Errors
///
/// When the system refuses.
pub fn yield_to_others() -> Result<()> {
    // SAFETY: a plain system call; zero is the calling thread.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
    ensure!(done == 0, "the priority can't be lowered: {}", io::Error::last_os_error());
    Ok(())
}

/// Allows this process and those that it starts as many descriptors as the
/// system lets it.
///
/// # Errors
///
/// When the system refuses.
pub fn raise_descriptor_limit() -> Result<()> {
    let mut limit = descriptor_limit();
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the limit is a valid one.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    ensure!(done == 0, "descriptors can't be raised: {}", io::Error::last_os_error());
    Ok(())
}

/// Returns how many connections a process may have, some descriptors aside.
pub fn connections_max() -> usize {
    let limit = usize::try_from(descriptor_limit().rlim_cur).unwrap_or(usize::MAX);
    limit.saturating_sub(DESCRIPTORS_ASIDE)
}

/// Returns so many connections, where a process may have them.
///
/// # Errors
///
/// When it may not, and fewer would show less than what is asked for.
pub fn connections(wanted: usize) -> Result<usize> {
    let most = connections_max();
    ensure!(wanted <= most, "{wanted} connections are asked for, and a process may have {most}");
    Ok(wanted)
}

fn descriptor_limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(done, 0, "the limit of descriptors is always known");
    limit
}

/// Returns the time of a clock that all processes of the machine share.
pub fn now() -> Duration {
    clock(libc::CLOCK_MONOTONIC).expect("the monotonic clock is always there")
}

/// Returns the CPU time that a process has used, all its threads, user and
/// kernel together.
///
/// # Errors
///
/// When the process is gone.
pub fn cpu_of(process: u32) -> Result<Duration> {
    let id = i32::try_from(process).context("process ids are small")?;
    let mut name = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    let found = unsafe { libc::clock_getcpuclockid(id, &raw mut name) };
    ensure!(found == 0, "process {process} has no clock");
    clock(name).with_context(|| format!("process {process} is gone"))
}

fn clock(name: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    match unsafe { libc::clock_gettime(name, &raw mut time) } {
        0 => Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns a sentence about the machine, for the report.
pub fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field(&cpu, "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let guest = if field(&cpu, "flags").is_some_and(|flags| flags.contains(" hypervisor")) {
        ", a virtual machine"
    } else {
        ""
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "Machine: {} cores of {model}{guest}, Linux {}, load {load} at the start. What is \
         measured runs on one core, clients, producer and Kafka on the other; loopback, no TLS.",
        cores(),
        kernel.trim(),
    )
}

/// Returns how many cores the machine has: a pinned thread is told of its own only.
fn cores() -> usize {
    // SAFETY: takes a name and touches no memory of ours.
    let cores = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(cores).unwrap_or(1)
}

/// Descriptors that a process needs beside those of its connections.
const DESCRIPTORS_ASIDE: usize = 200;
