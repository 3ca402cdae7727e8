//! The page and the facts that it shows. Everything is in the binary; nothing is
//! fetched from anywhere else.

use std::net::SocketAddr;

use serde_json::Value;
use serde_json::json;

use crate::app::demo::http::Answer;
use crate::app::demo::settings;
use crate::app::demo::world::SHOPS;

/// Returns a file of the page.
pub fn file(path: &str) -> Answer {
    let found = FILES.iter().find(|(name, ..)| *name == path);
    match found {
        Some((_, content_type, body)) => Answer::found(content_type, *body),
        None => Answer::refused("404 Not Found", "no such file"),
    }
}

/// Returns what the page can't know by itself.
pub fn facts(replicas: &[SocketAddr]) -> Answer {
    let tenants: Vec<Value> =
        SHOPS.iter().map(|shop| json!({ "name": shop.name, "city": shop.city })).collect();
    let facts = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "replicas": replicas.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
        "tenants": tenants,
    });
    Answer::found("application/json", facts.to_string())
}

/// Path, kind and content of each file.
const FILES: [(&str, &str, &str); 7] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/console.css", "text/css; charset=utf-8", include_str!("page/console.css")),
    ("/console.js", JAVASCRIPT, include_str!("page/console.js")),
    ("/drawing.js", JAVASCRIPT, include_str!("page/drawing.js")),
    ("/brucke.js", JAVASCRIPT, include_str!("../../../clients/browser/brucke.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/brucke.toml", "text/plain; charset=utf-8", settings::FILE),
];
const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
