//! How fast replicas let clients in, by what they say themselves.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

/// Asks replicas again and again how many connections they have let in.
pub struct Watch {
    over: Arc<AtomicBool>,
    replicas: Vec<JoinHandle<Vec<Look>>>,
}

/// What a replica said once.
#[derive(Debug, Clone, Copy)]
struct Look {
    asked: Instant,
    answered: Instant,
    opened: u64,
}

/// So many were let in, in no more than this time.
#[derive(Debug, Clone, Copy)]
pub struct Burst {
    pub opened: u64,
    pub span: Duration,
}

impl Watch {
    /// Begins with the replicas that have these admin addresses, also once they are
    /// started again.
    pub fn start(admins: impl Iterator<Item = SocketAddr>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let watch = |admin| {
            let over = Arc::clone(&over);
            thread::spawn(move || look_until(admin, &over))
        };
        let replicas = admins.map(watch).collect();
        Self { over, replicas }
    }

    /// Ends, and returns what each process let in between any two looks.
    pub fn end(self) -> Vec<Burst> {
        self.over.store(true, Relaxed);
        let looks = self.replicas.into_iter().map(|looks| looks.join().expect("it only reads"));
        looks.flat_map(|looks| bursts(&looks)).collect()
    }
}

fn look_until(admin: SocketAddr, over: &AtomicBool) -> Vec<Look> {
    let mut looks = Vec::new();
    while !over.load(Relaxed) {
        let asked = Instant::now();
        // It does not answer while it is gone.
        if let Ok(page) = metrics(admin) {
            let opened = page.lines().find_map(|line| line.strip_prefix(OPENED));
            let opened = opened.map_or(0, |count| count.trim().parse().expect("a count"));
            looks.push(Look { asked, answered: Instant::now(), opened });
        }
        thread::sleep(LOOK_INTERVAL);
    }
    looks
}

/// Returns the page of metrics.
pub fn metrics(admin: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

fn bursts(looks: &[Look]) -> Vec<Burst> {
    // A process that was started again begins from nothing.
    let lives = looks.chunk_by(|before, after| before.opened <= after.opened);
    let pairs = lives.flat_map(|life| {
        life.iter().enumerate().flat_map(|(index, from)| {
            life[index + 1..].iter().map(|until| Burst {
                opened: until.opened - from.opened,
                span: until.answered - from.asked,
            })
        })
    });
    pairs.collect()
}

const OPENED: &str = "brucke_connections_opened_total ";
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_of_one_process_and_as_long_as_it_can_have_been() {
        let began = Instant::now();
        let look = |at: u64, opened| Look {
            asked: began + Duration::from_millis(at),
            answered: began + Duration::from_millis(at + 10),
            opened,
        };
        let bursts = bursts(&[look(0, 5), look(200, 9), look(400, 2), look(600, 2)]);
        let bursts: Vec<_> = bursts.iter().map(|b| (b.opened, b.span.as_millis())).collect();
        assert_eq!(bursts, [(4, 210), (0, 210)]);
    }
}
