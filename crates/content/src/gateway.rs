//! Serves a store in the way of IPFS gateways, so that any IPFS client, or a browser, can read it.
//!
//! | request                                                   | answer                                               |
//! |-----------------------------------------------------------|------------------------------------------------------|
//! | `GET /ipfs/{cid}`, `GET /ipfs/{cid}/{path}`               | the bytes of a file, or a directory as JSON          |
//! | the same with `?format=raw` or `Accept: …vnd.ipld.raw`    | the block, for clients that check hashes themselves  |
//! | `HEAD` of either                                          | the headers                                          |
//!
//! A single `Range` of a file and `If-None-Match` are understood. Errors are plain text: 400 for a request that nobody
//! can answer, 404 for content that is not here, 500 for a damaged store. Content never changes under its name, so it may
//! be cached for ever. Files are served as plain text or plain bytes only: a browser runs nothing of them.
//!
//! A directory is `{"cid": "…", "entries": [{"name": "…", "cid": "…", "dag_size": 1}]}`, in the order of names;
//! `dag_size` in bytes is what the maker of the directory said.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::stream;
use serde::Serialize;

use crate::{
    Cid, CidError,
    read::{Entry, FileReader, Object, ReadError, read_range, resolve, stat},
    store::BlockStore,
};

/// Media type of a block.
pub const RAW_BLOCK_TYPE: &str = "application/vnd.ipld.raw";
/// How many bytes at the start of a file decide whether it is text.
pub const SNIFF_SIZE: usize = 64 * 1024;

const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const BYTES_TYPE: &str = "application/octet-stream";
const CACHE_FOREVER: &str = "public, max-age=29030400, immutable";

/// The routes below `/ipfs/` over a store.
pub fn router<S: BlockStore + Send + Sync + 'static>(store: Arc<S>) -> Router {
    Router::new()
        .route("/ipfs/{cid}", get(serve::<S>))
        .route("/ipfs/{cid}/", get(serve::<S>))
        .route("/ipfs/{cid}/{*path}", get(serve::<S>))
        .with_state(store)
}

type Names = BTreeMap<String, String>;

struct Request {
    root: Cid,
    path: String,
    is_raw: bool,
    range: Option<RangeWanted>,
    if_none_match: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RangeWanted {
    /// `bytes=1-` and `bytes=1-2`; the end is exclusive here.
    From(u64, Option<u64>),
    /// `bytes=-1`.
    Last(u64),
}

enum Answer<S> {
    NotModified { etag: String },
    Block { cid: Cid, block: Vec<u8> },
    File { cid: Cid, content_type: &'static str, size: u64, range: Option<Range<u64>>, reader: FileReader<Arc<S>> },
    Directory { cid: Cid, entries: Vec<Entry> },
}

#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error("{0}")]
    Cid(CidError),
    #[error("format {0:?} is not served: only raw is, and plain content without a format")]
    Format(String),
    #[error("the file has {size} bytes, none of them in the range")]
    Range { size: u64 },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("reading stopped")]
    Stopped,
}

async fn serve<S: BlockStore + Send + Sync + 'static>(
    State(store): State<Arc<S>>,
    Path(names): Path<Names>,
    Query(query): Query<Names>,
    headers: HeaderMap,
) -> Result<Response, GatewayError> {
    let request = Request::parse(&names, &query, &headers)?;
    let path = path_header(&request);
    let answer = tokio::task::spawn_blocking(move || answer(store, &request)).await;
    let mut response = answer.map_err(|_| GatewayError::Stopped)??.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE_FOREVER));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(path) = HeaderValue::from_str(&path) {
        headers.insert("x-ipfs-path", path);
    }
    Ok(response)
}

impl Request {
    fn parse(names: &Names, query: &Names, headers: &HeaderMap) -> Result<Self, GatewayError> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let cid = names.get("cid").map_or("", String::as_str);
        let root = cid.parse().map_err(GatewayError::Cid)?;
        let is_raw = match query.get("format").map(String::as_str) {
            Some("raw") => true,
            Some(format) => return Err(GatewayError::Format(format.to_owned())),
            None => text(header::ACCEPT).is_some_and(|accept| accept.contains(RAW_BLOCK_TYPE)),
        };
        Ok(Self {
            root,
            path: names.get("path").cloned().unwrap_or_default(),
            is_raw,
            range: text(header::RANGE).and_then(RangeWanted::parse),
            if_none_match: text(header::IF_NONE_MATCH).map(str::to_owned),
        })
    }

    fn has(&self, etag: &str) -> bool {
        let known = self.if_none_match.as_deref().unwrap_or_default().split(',').map(str::trim);
        known.map(|known| known.strip_prefix("W/").unwrap_or(known)).any(|known| known == "*" || known == etag)
    }
}

impl RangeWanted {
    /// One range of bytes. Anything else is passed over, as the standard allows.
    fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        if from.trim().is_empty() {
            return Some(Self::Last(number(to)?));
        }
        let from = number(from)?;
        if to.trim().is_empty() {
            return Some(Self::From(from, None));
        }
        let end = number(to)?.checked_add(1)?;
        (from < end).then_some(Self::From(from, Some(end)))
    }

    fn within(self, size: u64) -> Result<Range<u64>, GatewayError> {
        let range = match self {
            Self::From(from, end) => from..end.unwrap_or(size).min(size),
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        if range.is_empty() { Err(GatewayError::Range { size }) } else { Ok(range) }
    }
}

fn answer<S: BlockStore>(store: Arc<S>, request: &Request) -> Result<Answer<S>, GatewayError> {
    let cid = resolve(&store, &request.root, &request.path)?;
    if request.is_raw {
        let etag = block_etag(&cid);
        if request.has(&etag) && store.has(&cid).map_err(ReadError::from)? {
            return Ok(Answer::NotModified { etag });
        }
        let block = store.get(&cid).map_err(ReadError::from)?.ok_or(ReadError::Missing { cid })?;
        return Ok(Answer::Block { cid, block });
    }
    let size = match stat(&store, &cid)? {
        Object::Directory { entries } => {
            let etag = directory_etag(&cid);
            let is_known = request.has(&etag);
            return Ok(if is_known { Answer::NotModified { etag } } else { Answer::Directory { cid, entries } });
        }
        Object::File { size } => size,
    };
    let etag = file_etag(&cid);
    if request.has(&etag) {
        return Ok(Answer::NotModified { etag });
    }
    let start = read_range(&store, &cid, 0..SNIFF_SIZE as u64, SNIFF_SIZE as u64)?;
    let content_type = if is_text(&start, start.len() as u64 == size) { TEXT_TYPE } else { BYTES_TYPE };
    let range = request.range.map(|range| range.within(size)).transpose()?;
    let reader = FileReader::open(store, &cid, range.clone().unwrap_or(0..size), u64::MAX)?;
    Ok(Answer::File { cid, content_type, size, range, reader })
}

/// Whether bytes are text: UTF-8 without control characters other than white space. Unless they are the `whole` file,
/// they may end within a character.
fn is_text(bytes: &[u8], is_whole: bool) -> bool {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if !is_whole && error.error_len().is_none() => {
            str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.chars().any(|character| character.is_ascii_control() && !matches!(character, '\t' | '\n' | '\r' | '\x0c'))
}

fn file_etag(cid: &Cid) -> String {
    format!("\"{cid}\"")
}

fn block_etag(cid: &Cid) -> String {
    format!("\"{cid}.raw\"")
}

fn directory_etag(cid: &Cid) -> String {
    format!("\"{cid}.json\"")
}

/// The requested path, every byte that a header or a URL could misread percent-encoded.
fn path_header(request: &Request) -> String {
    let mut text = format!("/ipfs/{}", request.root);
    for name in request.path.split('/').filter(|name| !name.is_empty()) {
        text.push('/');
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}

impl<S: BlockStore + Send + Sync + 'static> IntoResponse for Answer<S> {
    fn into_response(self) -> Response {
        match self {
            Self::NotModified { etag } => (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response(),
            Self::Block { cid, block } => {
                let name = format!("attachment; filename=\"{cid}.bin\"");
                let headers = [
                    (header::CONTENT_TYPE, RAW_BLOCK_TYPE.to_owned()),
                    (header::CONTENT_DISPOSITION, name),
                    (header::ETAG, block_etag(&cid)),
                ];
                (headers, block).into_response()
            }
            Self::Directory { cid, entries } => {
                let headers = [(header::ETAG, directory_etag(&cid))];
                (headers, Json(Listing::new(&cid, &entries))).into_response()
            }
            Self::File { cid, content_type, size, range, reader } => {
                let length = range.as_ref().map_or(size, |range| range.end - range.start);
                let headers = [
                    (header::CONTENT_TYPE, content_type.to_owned()),
                    (header::CONTENT_LENGTH, length.to_string()),
                    (header::ACCEPT_RANGES, "bytes".to_owned()),
                    (header::ETAG, file_etag(&cid)),
                ];
                let body = stream_of(reader);
                let Some(Range { start, end }) = range else {
                    return (headers, body).into_response();
                };
                let content_range = format!("bytes {start}-{}/{size}", end - 1);
                let content_range = [(header::CONTENT_RANGE, content_range)];
                (StatusCode::PARTIAL_CONTENT, headers, content_range, body).into_response()
            }
        }
    }
}

/// The pieces of a file as a body. A piece that cannot be read breaks the connection off, so that the client notices.
fn stream_of<S: BlockStore + Send + Sync + 'static>(reader: FileReader<Arc<S>>) -> Body {
    Body::from_stream(stream::unfold(reader, |mut reader| async {
        let next = tokio::task::spawn_blocking(move || {
            let piece = reader.next()?;
            Some((piece.map(Bytes::from).map_err(GatewayError::Read), reader))
        });
        // Without an answer there is no reader to go on with. The length given in the header tells the client.
        next.await.ok().flatten()
    }))
}

#[derive(Serialize)]
struct Listing<'a> {
    cid: &'a Cid,
    entries: Vec<ListingEntry<'a>>,
}

#[derive(Serialize)]
struct ListingEntry<'a> {
    name: &'a str,
    cid: &'a Cid,
    dag_size: u64,
}

impl<'a> Listing<'a> {
    fn new(cid: &'a Cid, entries: &'a [Entry]) -> Self {
        let entries = entries.iter();
        let entries = entries.map(|Entry { name, cid, dag_size }| ListingEntry { name, cid, dag_size: *dag_size });
        Self { cid, entries: entries.collect() }
    }
}

impl GatewayError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Cid(_) | Self::Format(_) | Self::Read(ReadError::PathTooDeep) => StatusCode::BAD_REQUEST,
            Self::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Read(ReadError::Missing { .. } | ReadError::NoEntry { .. } | ReadError::NotADirectory { .. }) => {
                StatusCode::NOT_FOUND
            }
            Self::Read(_) | Self::Stopped => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, TEXT_TYPE), (header::CACHE_CONTROL, "no-store")];
        let mut response = (self.status(), headers, format!("{self}\n")).into_response();
        if let Self::Range { size } = self
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (text, size, expected) in [
            ("bytes=0-0", 10, Some(Some(0..1))),
            ("bytes=3-", 10, Some(Some(3..10))),
            ("bytes=3-99", 10, Some(Some(3..10))),
            ("bytes=-4", 10, Some(Some(6..10))),
            ("bytes=-40", 10, Some(Some(0..10))),
            ("bytes=10-", 10, Some(None)),
            ("bytes=-0", 10, Some(None)),
            ("bytes=0-", 0, Some(None)),
            ("bytes=4-3", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("bytes=-", 10, None),
            ("lines=0-1", 10, None),
        ] {
            let range = RangeWanted::parse(text).map(|range| range.within(size).ok());
            assert_eq!(range, expected, "{text}");
        }
    }

    #[test]
    fn text_is_told_from_bytes() {
        let cut = &"é".as_bytes()[..1];
        for (bytes, is_whole, expected) in [
            (&b""[..], true, true),
            (b"line\r\n\ttab", true, true),
            ("é".as_bytes(), true, true),
            (cut, true, false),
            (cut, false, true),
            (b"a\0b", true, false),
            (b"\x1b[0m", true, false),
            (b"\xff\xfe", false, false),
        ] {
            assert_eq!(is_text(bytes, is_whole), expected, "{bytes:?}");
        }
    }
}
