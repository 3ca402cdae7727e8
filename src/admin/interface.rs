//! The admin interface: JSON below `/v1`, and one page that shows it.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web;
use serde_json::Value;
use serde_json::json;

use crate::admin::access::Access;
use crate::admin::operator::ConnectionsQuery;
use crate::admin::operator::ExplainBody;
use crate::admin::operator::LogLevelBody;
use crate::admin::operator::Operator;
use crate::admin::operator::Order;
use crate::admin::operator::PartitionsQuery;
use crate::admin::operator::Refused;
use crate::admin::operator::RevokeBody;
use crate::admin::operator::TraceBody;

/// Where orders are taken.
pub(in crate::admin) struct Desk {
    pub(in crate::admin) operator: Arc<dyn Operator>,
    pub(in crate::admin) access: Access,
}

/// Adds the routes.
pub(in crate::admin) fn routes(config: &mut web::ServiceConfig) {
    let wrong = |error: &dyn std::fmt::Display| {
        answer(StatusCode::BAD_REQUEST, "invalid", &error.to_string())
    };
    config.app_data(web::QueryConfig::default().error_handler(move |error, _| {
        let response = wrong(&error);
        InternalError::from_response(error, response).into()
    }));
    config.app_data(web::JsonConfig::default().limit(BODY_BYTES_MAX).error_handler(
        move |error, _| {
            let response = wrong(&error);
            InternalError::from_response(error, response).into()
        },
    ));
    config.route("/", web::get().to(page));
    config.route("/v1/connections", web::get().to(connections));
    config.route("/v1/connections/{id}", web::get().to(connection));
    config.route("/v1/connections/{id}/disconnect", web::post().to(disconnect));
    config.route("/v1/connections/{id}/trace", web::put().to(trace));
    config.route("/v1/channels", web::get().to(channels));
    config.route("/v1/partitions", web::get().to(partitions));
    config.route("/v1/sweeps", web::get().to(sweeps));
    config.route("/v1/tenants", web::get().to(tenants));
    config.route("/v1/revocations", web::post().to(revoke));
    config.route("/v1/log-level", web::put().to(log_level));
    config.route("/v1/explain", web::post().to(explain));
}

/// The page holds nothing itself: it asks as any client of the interface does.
async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, PAGE_POLICY))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .body(PAGE)
}

type Desks = web::Data<Desk>;

async fn connections(
    request: HttpRequest,
    desk: Desks,
    query: web::Query<ConnectionsQuery>,
) -> HttpResponse {
    take(&request, &desk, Order::Connections(query.into_inner())).await
}

async fn connection(request: HttpRequest, desk: Desks, id: web::Path<u64>) -> HttpResponse {
    take(&request, &desk, Order::Connection { id: *id }).await
}

async fn disconnect(request: HttpRequest, desk: Desks, id: web::Path<u64>) -> HttpResponse {
    take(&request, &desk, Order::Disconnect { id: *id }).await
}

async fn trace(
    request: HttpRequest,
    desk: Desks,
    id: web::Path<u64>,
    body: web::Json<TraceBody>,
) -> HttpResponse {
    take(&request, &desk, Order::Trace { id: *id, body: body.into_inner() }).await
}

async fn channels(request: HttpRequest, desk: Desks) -> HttpResponse {
    take(&request, &desk, Order::Channels).await
}

async fn partitions(
    request: HttpRequest,
    desk: Desks,
    query: web::Query<PartitionsQuery>,
) -> HttpResponse {
    take(&request, &desk, Order::Partitions(query.into_inner())).await
}

async fn sweeps(request: HttpRequest, desk: Desks) -> HttpResponse {
    take(&request, &desk, Order::Sweeps).await
}

async fn tenants(request: HttpRequest, desk: Desks) -> HttpResponse {
    take(&request, &desk, Order::Tenants).await
}

async fn revoke(request: HttpRequest, desk: Desks, body: web::Json<RevokeBody>) -> HttpResponse {
    take(&request, &desk, Order::Revoke(body.into_inner())).await
}

async fn log_level(
    request: HttpRequest,
    desk: Desks,
    body: web::Json<LogLevelBody>,
) -> HttpResponse {
    take(&request, &desk, Order::LogLevel(body.into_inner())).await
}

async fn explain(request: HttpRequest, desk: Desks, body: web::Json<ExplainBody>) -> HttpResponse {
    take(&request, &desk, Order::Explain(body.into_inner())).await
}

/// Takes an order from whoever may give it.
async fn take(request: &HttpRequest, desk: &Desk, order: Order) -> HttpResponse {
    if let Err(denied) = desk.access.check(request) {
        let (status, code, message) = denied.row();
        return answer(status, code, message);
    }
    match desk.operator.operate(order).await {
        Ok(value) => HttpResponse::Ok().insert_header(NEVER_KEPT).json(value),
        Err(refused) => {
            let (status, code) = match &refused {
                Refused::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
                Refused::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
                Refused::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            };
            answer(status, code, &refused.to_string())
        }
    }
}

fn answer(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let body: Value = json!({ "code": code, "message": message });
    HttpResponse::build(status).insert_header(NEVER_KEPT).json(body)
}

const NEVER_KEPT: (header::HeaderName, &str) = (header::CACHE_CONTROL, "no-store");
/// Bytes of a body: a filter with its keys, or a token.
const BODY_BYTES_MAX: usize = 64 << 10;
const PAGE: &str = include_str!("page.html");
const PAGE_POLICY: &str = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; \
                           script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
