//! The admin listener: `/livez`, `/readyz`, `/metrics`, and the interface.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;

use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpServer;
use actix_web::dev::ServerHandle;
use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web;
use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_local;

use crate::admin::accept;
use crate::admin::access::Access;
use crate::admin::health::Health;
use crate::admin::health::Problem;
use crate::admin::interface;
use crate::admin::interface::Desk;
use crate::admin::interface::only;
use crate::admin::operator::Operator;
use crate::telemetry::events::ListenerFailed;

/// The running listener.
#[derive(Debug)]
pub struct AdminListener {
    address: SocketAddr,
    server: ServerHandle,
}

impl AdminListener {
    /// Binds and starts. To be called within an actix system.
    ///
    /// # Errors
    ///
    /// When the address can't be bound or the worker can't be started.
    pub fn start(
        address: SocketAddr,
        health: Arc<dyn Health>,
        operator: Arc<dyn Operator>,
        access: Access,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        let address = socket.local_addr()?;
        let health = web::Data::from(health);
        let desk = web::Data::new(Desk { operator, access });
        let app =
            move || App::new().app_data(health.clone()).app_data(desk.clone()).configure(routes);
        let server = HttpServer::new(app).workers(1).disable_signals().listen(socket)?.run();
        let handle = server.handle();
        spawn_local(async move {
            if let Err(error) = server.await {
                ListenerFailed { error }.emit();
            }
        });
        Ok(Self { address, server: handle })
    }

    /// Returns where operators connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the listener.
    pub async fn stop(self) {
        self.server.stop(false).await;
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config.service(only(Method::GET, "/livez", web::get().to(livez)));
    config.service(only(Method::GET, "/readyz", web::get().to(readyz)));
    config.service(only(Method::GET, "/metrics", web::get().to(metrics)));
    config.configure(interface::routes);
}

async fn livez(health: web::Data<dyn Health>) -> HttpResponse {
    let problems = health.live_problems();
    verdict(&problems, &json!({ "live": problems.is_empty(), "problems": problems }))
}

async fn readyz(health: web::Data<dyn Health>) -> HttpResponse {
    let (problems, warnings) = (health.ready_problems(), health.warnings());
    let ready = problems.is_empty();
    verdict(&problems, &json!({ "ready": ready, "problems": problems, "warnings": warnings }))
}

async fn metrics(request: HttpRequest, health: web::Data<dyn Health>) -> HttpResponse {
    let format = accept::format(&request);
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, format.content_type()))
        .insert_header((header::VARY, header::ACCEPT.as_str()))
        .body(health.metrics(format))
}

fn verdict(problems: &[Problem], body: &Value) -> HttpResponse {
    let mut response = match problems {
        [] => HttpResponse::Ok(),
        _ => HttpResponse::ServiceUnavailable(),
    };
    response.json(body)
}
