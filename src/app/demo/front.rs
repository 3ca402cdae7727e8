//! The demo's own listener: the page, what the page asks, and its way to the
//! replicas, which takes the request of a WebSocket off the page's wire.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use crate::app::demo::http::Answer;
use crate::app::demo::http::Head;
use crate::app::demo::page;
use crate::app::demo::wire;
use crate::app::demo::wire::Wires;
use crate::app::demo::world::SHOPS;
use crate::server::signing_key::SigningKey;

/// What the listener answers from.
#[derive(Debug)]
pub struct Front {
    pub replicas: Vec<SocketAddr>,
    /// What restarts each of them.
    pub restarts: Vec<mpsc::Sender<()>>,
    pub signing_key: SigningKey,
    pub wires: Wires,
}

/// Answers until it is dropped.
pub async fn serve(front: Arc<Front>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&room).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors: others must end first.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let front = Arc::clone(&front);
        tokio::spawn(async move {
            // Whoever asked has gone.
            let _ = front.answer(stream).await;
            drop(place);
        });
    }
}

impl Front {
    async fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let Some(head) = Head::read(&mut stream).await? else { return Ok(()) };
        if !head.is_for_loopback() {
            let refused = Answer::refused("403 Forbidden", "this is for localhost only");
            return refused.write(&mut stream).await;
        }
        if let Some(way) = head.path.strip_prefix("/replicas/") {
            return self.carry(&head, way, stream).await;
        }
        self.page(&head).write(&mut stream).await
    }

    fn page(&self, head: &Head) -> Answer {
        match (head.method.as_str(), head.path.as_str()) {
            ("GET", "/token") => match head.parameter("tenant") {
                Some(tenant) => self.token(tenant),
                None => Answer::refused("400 Bad Request", "which tenant? /token?tenant=…"),
            },
            ("POST", _) if !head.is_of_this_site() => {
                Answer::refused("403 Forbidden", "only the demo's own page may do that")
            }
            ("POST", "/cut") => self.cut(head),
            ("POST", "/restart") => self.restart(head),
            ("GET", "/demo.json") => page::facts(&self.replicas),
            ("GET", path) => page::file(path),
            _ => Answer::refused("405 Method Not Allowed", "not this method"),
        }
    }

    /// Carries a WebSocket: `way` is the replica's number and the wire's name.
    async fn carry(&self, head: &Head, way: &str, mut stream: TcpStream) -> io::Result<()> {
        let way = way.split_once('/');
        let replica = way.and_then(|(number, _)| self.replicas.get(number.parse::<usize>().ok()?));
        let (Some((_, name)), Some(replica)) = (way, replica) else {
            return Answer::refused("404 Not Found", "no such replica").write(&mut stream).await;
        };
        match self.wires.take(name) {
            Ok(cuts) => {
                let mut request = b"GET /v1/ws HTTP/1.1\r\n".to_vec();
                request.extend_from_slice(&head.rest);
                wire::carry(stream, *replica, &request, cuts).await
            }
            Err(_) => wire::reset(stream),
        }
    }

    fn cut(&self, head: &Head) -> Answer {
        let lasting = head.parameter("ms").and_then(|ms| ms.parse().ok());
        let (Some(name), Some(ms)) = (head.parameter("wire"), lasting) else {
            return Answer::refused("400 Bad Request", "which wire? /cut?wire=…&ms=…");
        };
        self.wires.cut(name, Duration::from_millis(ms));
        Answer::found("text/plain; charset=utf-8", "cut\n")
    }

    fn restart(&self, head: &Head) -> Answer {
        let number = head.parameter("replica").and_then(|number| number.parse::<usize>().ok());
        let Some(restart) = number.and_then(|number| self.restarts.get(number)) else {
            return Answer::refused("400 Bad Request", "which replica? /restart?replica=…");
        };
        // Full while it restarts already.
        let _ = restart.try_send(());
        Answer::found("text/plain; charset=utf-8", "restarting\n")
    }

    /// Signs a token for whoever asks: the page stands in for a login.
    fn token(&self, tenant: &str) -> Answer {
        if !SHOPS.iter().any(|shop| shop.name == tenant) {
            return Answer::refused("404 Not Found", "no such tenant");
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        let claims = json!({
            "iss": "brucke-demo",
            "aud": "brucke",
            "sub": "visitor",
            "tenant": tenant,
            "exp": now + TOKEN_LIFETIME.as_secs(),
        });
        match self.signing_key.sign(&claims, None) {
            Ok(token) => Answer::found("text/plain; charset=utf-8", token.secret()),
            Err(error) => Answer::refused("500 Internal Server Error", &error.to_string()),
        }
    }
}

/// Connections that are served at once; more wait.
const CONNECTIONS_MAX: usize = 512;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Short, so that a renewal can be watched.
const TOKEN_LIFETIME: Duration = Duration::from_secs(120);
