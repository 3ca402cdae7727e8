//! The clients' listener: binds, starts the workers, and ends them in order.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::HttpService;
use actix_http::KeepAlive;
use actix_http::Request;
use actix_http::error::DispatchError;
use actix_http::h1::Codec;
use actix_server::Server;
use actix_server::ServerHandle;
use actix_service::Service;
use actix_service::ServiceFactory;
use actix_service::fn_factory;
use actix_service::fn_service;
use actix_service::map_config;
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::web;
use crossbeam_channel::Sender;
use socket2::Domain;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::delivery::shard::Shard;
use crate::registry::directory::Directory;
use crate::registry::message::Command;
use crate::server::arrival::Arrivals;
use crate::server::arrival::Arrived;
use crate::server::arrival::Unfit;
use crate::server::driver;
use crate::server::driver::Order;
use crate::server::inquiry::Workers;
use crate::server::network::Trusted;
use crate::server::pace::Pace;
use crate::server::places::Places;
use crate::server::pulse::Pulses;
use crate::server::refusal::Refusal;
use crate::server::routes;
use crate::server::routes::Gate;
use crate::server::settings::ServerSettings;
use crate::server::stream::ClientStream;
use crate::server::tls::keeper::Keeper;
use crate::server::token::TokenError;
use crate::server::upgrade;
use crate::server::worker::Worker;
use crate::telemetry::events::ListenerFailed;
use crate::telemetry::metric;
use crate::telemetry::recorder;
use crate::telemetry::traces::queue::SpanQueue;
use crate::tenancy::verify::Verify;
use crate::types::ids::ShardId;

/// What the workers are made of.
#[derive(Clone)]
pub struct WorkerParts {
    pub directory: Arc<Directory>,
    pub verifier: Arc<dyn Verify>,
    /// Where wishes for the Kafka side go.
    pub commands: Sender<Command>,
    /// Where spans go.
    pub spans: SpanQueue,
    /// Makes the shard of a worker, on the worker's own thread.
    pub shard: Arc<dyn Fn(ShardId) -> Shard + Send + Sync>,
}

impl fmt::Debug for WorkerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerParts").finish_non_exhaustive()
    }
}

/// The running listener.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    socket: TcpListener,
    server: ServerHandle,
    orders: watch::Sender<Order>,
    drained: mpsc::Receiver<ShardId>,
    pulses: Pulses,
    inquiries: Workers,
    tls: Option<Keeper>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every client has left.
    All,
    /// Time was up; so many sockets are still open.
    Some { sockets: usize },
}

impl Listener {
    /// Binds and starts the workers. To be called within an actix system.
    ///
    /// # Errors
    ///
    /// When the address can't be bound or a worker can't be started.
    pub fn start(settings: &ServerSettings, parts: &WorkerParts) -> io::Result<Self> {
        recorder::begin(metric::HANDSHAKE_REFUSALS, "reason", Refusal::reasons());
        let reasons = TokenError::ALL.map(TokenError::reason);
        recorder::begin(metric::TOKEN_REFUSALS, "reason", reasons);
        recorder::begin(metric::HANDSHAKE_REFUSALS, "reason", Unfit::REASONS);
        let trusted = Trusted::new(&settings.proxies.trusted);
        let tls = settings.tls.as_ref().map(Keeper::load).transpose();
        let tls = tls.map_err(|error| io::Error::other(format!("a file of TLS {error}")))?;
        let arrivals = Arrivals::new(settings, trusted.clone(), tls.clone());
        let places = Places::new(settings.connections_per_address_max);
        let pace = Arc::new(Pace::default());
        let workers = settings.workers.get();
        let socket = bind(settings.address)?;
        let address = socket.local_addr()?;
        let (orders, _) = watch::channel(Order::Serve);
        let (drained_sender, drained) = mpsc::channel(usize::from(workers));
        let next_shard = Arc::new(AtomicU16::new(0));
        let pulses = Pulses::new(workers);
        let (inquiries, ends) = Workers::new(workers);
        let ends = Mutex::new(ends.into_iter().map(Some).collect::<Vec<_>>());
        let ends = Arc::new(ends);
        let factory = {
            let (settings, parts) = (settings.clone(), parts.clone());
            let (orders, pulses) = (orders.clone(), pulses.clone());
            move || {
                let shard = ShardId::new(next_shard.fetch_add(1, Relaxed));
                assert!(shard.raw() < settings.workers.get(), "actix starts each worker once");
                let worker = Worker::new(
                    shard,
                    (parts.shard)(shard),
                    settings.edge.clone(),
                    parts.commands.clone(),
                    Arc::clone(&parts.directory),
                    parts.spans.clone(),
                );
                let inquiries = {
                    let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
                    ends[usize::from(shard.raw())].take().expect("each worker starts once")
                };
                let drive = driver::drive(
                    Rc::clone(&worker),
                    shard,
                    orders.subscribe(),
                    drained_sender.clone(),
                    pulses.clone(),
                    inquiries,
                );
                spawn_local(drive);
                let gate = Gate {
                    worker: Rc::clone(&worker),
                    authentication: settings.authentication.clone(),
                    verifier: Arc::clone(&parts.verifier),
                    trusted: trusted.clone(),
                    forwarded_header: settings.proxies.header,
                    places: Arc::clone(&places),
                    pace: Arc::clone(&pace),
                };
                service(&settings, gate, arrivals.clone())
            }
        };
        let server = Server::build()
            .workers(usize::from(workers))
            .max_concurrent_connections(arriving_max(settings))
            .disable_signals()
            .listen("clients", socket.try_clone()?, factory)?
            .run();
        let handle = server.handle();
        spawn_local(async move {
            if let Err(error) = server.await {
                ListenerFailed { error }.emit();
            }
        });
        if let Some(keeper) = &tls {
            spawn_local(keeper.clone().watch());
        }
        Ok(Self { address, socket, server: handle, orders, drained, pulses, inquiries, tls })
    }

    /// Returns where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many worker threads there are.
    pub fn workers(&self) -> u16 {
        u16::try_from(self.drained.max_capacity()).expect("made from as many")
    }

    /// Returns what tells whether the workers get on.
    pub fn pulses(&self) -> &Pulses {
        &self.pulses
    }

    /// Returns the way by which operators ask the workers.
    pub fn inquiries(&self) -> &Workers {
        &self.inquiries
    }

    /// Returns what keeps the certificate; `None` without TLS.
    pub fn tls(&self) -> Option<&Keeper> {
        self.tls.as_ref()
    }

    /// Lets nobody in any more, and sends everybody away over `window`.
    pub async fn drain(&mut self, window: Duration) -> Drained {
        self.server.pause().await;
        // actix says so before its accepting thread has let go of the socket.
        sleep(PAUSE_GRACE).await;
        // actix keeps the socket open, and whoever connects would wait for
        // nothing: refuse them instead.
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
        self.orders.send_replace(Order::Drain(window));
        let all = async {
            for _ in 0..self.drained.max_capacity() {
                self.drained.recv().await;
            }
        };
        match timeout(window + DRAIN_GRACE, all).await {
            Ok(()) => Drained::All,
            Err(_) => Drained::Some { sockets: self.pulses.sockets() },
        }
    }

    /// Ends the workers; whoever is still connected is cut off.
    pub async fn stop(self) {
        self.server.stop(false).await;
    }
}

/// Returns what serves the connections of one worker.
fn service(
    settings: &ServerSettings,
    gate: Gate,
    arrivals: Arrivals,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
+ use<> {
    let worker = Rc::clone(&gate.worker);
    let upgradable = App::new().app_data(web::Data::new(gate)).configure(routes::upgradable);
    let upgradable = Rc::new(map_config(upgradable, |()| AppConfig::default()));
    let plain = map_config(App::new().configure(routes::plain), |()| AppConfig::default());
    let upgrade = fn_factory(move || {
        let (upgradable, worker) = (Rc::clone(&upgradable), Rc::clone(&worker));
        async move {
            let application = Rc::new(upgradable.new_service(()).await?);
            Ok::<_, ()>(fn_service(
                move |(request, framed): (Request, Framed<ClientStream, Codec>)| {
                    let (application, worker) = (Rc::clone(&application), Rc::clone(&worker));
                    async move {
                        let sockets = worker.edge().sockets;
                        upgrade::serve(&*application, &worker, sockets, request, framed).await;
                        Ok::<(), actix_web::Error>(())
                    }
                },
            ))
        }
    });
    let http = HttpService::build()
        .keep_alive(KeepAlive::Disabled)
        .client_request_timeout(settings.head_timeout)
        // For refusals of requests whose body never comes. WebSockets have left
        // actix by then, and their closing handshakes are the shard's.
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .upgrade(upgrade)
        .h1(plain);
    let http = Rc::new(http);
    fn_factory(move || {
        let (http, arrivals) = (Rc::clone(&http), arrivals.clone());
        async move {
            let http = Rc::new(http.new_service(()).await?);
            Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                let (http, arrivals) = (Rc::clone(&http), arrivals.clone());
                async move {
                    match arrivals.admit(socket).await {
                        Some(Arrived { stream, peer, handshake }) => {
                            let served = http.call((stream, peer)).await;
                            drop(handshake);
                            served
                        }
                        None => Ok(()),
                    }
                }
            }))
        }
    })
}

/// Returns beyond how many connections on their way in a worker leaves the others to
/// the system: never before those that may be have their places, and as many more
/// are told that there is none.
fn arriving_max(settings: &ServerSettings) -> usize {
    settings.handshakes_max as usize * 2 + ARRIVING_SPARE
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How long those who left last have to close their sockets.
const DRAIN_GRACE: Duration = Duration::from_secs(3);
/// Connections that the system holds back while the workers are busy.
const BACKLOG: i32 = 4_096;
/// Connections that a worker accepts beyond those, to close them.
const ARRIVING_SPARE: usize = 1_000;
/// How long a refused client has to hang up.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE_GRACE: Duration = Duration::from_millis(100);
