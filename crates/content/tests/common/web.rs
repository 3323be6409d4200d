//! A gateway on loopback, and requests to it.
#![allow(dead_code)] // Each test uses its part.

use std::sync::Arc;

use althing_content::{MemoryStore, gateway::router};
use axum::{Router, http::StatusCode};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// Serves on a free port for as long as the test runs.
pub async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

pub async fn serve_store() -> (Arc<MemoryStore>, String) {
    let store = Arc::new(MemoryStore::new());
    let base_url = serve(router(Arc::clone(&store))).await;
    (store, base_url)
}

pub fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().expect("client")
}

pub async fn request(url: &str, headers: &[(HeaderName, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
    let value = |value| HeaderValue::from_str(value).expect("value");
    let headers = headers.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    let response = http().get(url).headers(headers).send().await.expect("answer");
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, response.bytes().await.expect("body").to_vec())
}
