//! The admin interface: JSON below `/v1`, and one page that shows it.

use std::sync::Arc;

use actix_web::Error;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::Resource;
use actix_web::Route;
use actix_web::error::InternalError;
use actix_web::error::JsonPayloadError;
use actix_web::error::QueryPayloadError;
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::http::header::HeaderValue;
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
    config.configure(errors);
    config.service(only(Method::GET, "/", web::get().to(page)));
    config.service(only(Method::GET, "/v1/connections", web::get().to(connections)));
    config.service(only(Method::GET, "/v1/connections/{id}", web::get().to(connection)));
    let disconnects = "/v1/connections/{id}/disconnect";
    config.service(only(Method::POST, disconnects, web::post().to(disconnect)));
    config.service(only(Method::PUT, "/v1/connections/{id}/trace", web::put().to(trace)));
    config.service(only(Method::GET, "/v1/channels", web::get().to(channels)));
    config.service(only(Method::GET, "/v1/partitions", web::get().to(partitions)));
    config.service(only(Method::GET, "/v1/sweeps", web::get().to(sweeps)));
    config.service(only(Method::GET, "/v1/tenants", web::get().to(tenants)));
    config.service(only(Method::POST, "/v1/revocations", web::post().to(revoke)));
    config.service(only(Method::PUT, "/v1/log-level", web::put().to(log_level)));
    config.service(only(Method::POST, "/v1/explain", web::post().to(explain)));
    config.default_service(web::to(nowhere));
}

/// Returns what stands at a path, which has one route: other methods are told so.
pub(in crate::admin) fn only(method: Method, path: &str, route: Route) -> Resource {
    let refuse = move || {
        let method = method.clone();
        async move {
            let text = format!("this path takes {method} alone");
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &text);
            let allow = HeaderValue::from_str(method.as_str()).expect("a method is a token");
            response.headers_mut().insert(header::ALLOW, allow);
            response
        }
    };
    web::resource(path).route(route).default_service(web::to(refuse))
}

async fn nowhere() -> HttpResponse {
    let text = "there is nothing here; docs/admin.md lists what there is";
    answer(StatusCode::NOT_FOUND, "not_found", text)
}

/// Has what can't be read answered as all errors are.
fn errors(config: &mut web::ServiceConfig) {
    config.app_data(web::PathConfig::default().error_handler(|error, _| {
        let text = "a connection is named by its number, the `connection` of /v1/connections";
        unreadable(error, text)
    }));
    config.app_data(web::QueryConfig::default().error_handler(|error, _| {
        let text = match &error {
            QueryPayloadError::Deserialize(why) => format!("the query can't be read: {why}"),
            error => error.to_string(),
        };
        unreadable(error, &text)
    }));
    let json = web::JsonConfig::default().limit(BODY_BYTES_MAX);
    config.app_data(json.error_handler(|error, _| {
        let text = match &error {
            JsonPayloadError::ContentType => {
                "say what the body is: `Content-Type: application/json`".to_owned()
            }
            JsonPayloadError::Deserialize(why) => format!("the body can't be read: {why}"),
            JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
                format!("a body has at most {BODY_BYTES_MAX} bytes")
            }
            error => error.to_string(),
        };
        unreadable(error, &text)
    }));
}

fn unreadable<E: std::fmt::Debug + std::fmt::Display + 'static>(error: E, text: &str) -> Error {
    let response = answer(StatusCode::BAD_REQUEST, "invalid", text);
    InternalError::from_response(error, response).into()
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
