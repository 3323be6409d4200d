//! Serves a store in the way of IPFS gateways, so that any IPFS client, or a browser, can read it: a trustless gateway
//! (<https://specs.ipfs.tech/http-gateways/trustless-gateway/>) and plain content besides.
//!
//! | request                                                   | answer                                               |
//! |-----------------------------------------------------------|------------------------------------------------------|
//! | `GET /ipfs/{cid}`, `GET /ipfs/{cid}/{path}`               | the bytes of a file, or a directory as JSON          |
//! | the same with `?format=raw` or `Accept: …vnd.ipld.raw`    | the block, for clients that check hashes themselves  |
//! | the same with `?format=car` or `Accept: …vnd.ipld.car`    | an archive: the path, then what lies at its end      |
//! | `HEAD` of any                                             | the headers                                          |
//!
//! Of archives `dag-scope=block|entity|all` and `entity-bytes=from:to` choose a part; they are made depth first, with
//! duplicates if `dups=y`. A single `Range` of a file or block and `If-None-Match` are understood. Errors are plain text:
//! 400 for a request that nobody can answer, 404 for content that is not here (412 with `only-if-cached`), 406 for forms
//! that are not made here, 410 for what this gateway refuses to give, 429 while too many archives are being sent, 500 for
//! a damaged store, 501 for kinds of content that are not read here. Content never changes under its name, so it may be
//! cached for ever. Files are served as plain text or plain bytes only: a browser runs nothing of them, and may read them
//! from any page.
//!
//! A directory is `{"cid": "…", "entries": [{"name": "…", "cid": "…", "dag_size": 1}]}`, in the order of names;
//! `dag_size` in bytes is what the maker of the directory said.

mod request;
mod stream;

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Cid, CidError,
    car::{CAR_TYPE, encode_header},
    dag_pb::NodeError,
    directory::{Entry, list_at_most, resolve_path},
    read::{FileReader, Object, ReadError, read_range, stat},
    store::{BlockStore, StoreError},
    traversal::{Scope, Traversal},
};
use request::{Car, Form, Names, Request, Root};

/// Media type of a block.
pub const RAW_BLOCK_TYPE: &str = "application/vnd.ipld.raw";
/// How many bytes at the start of a file decide whether it is text.
pub const SNIFF_SIZE: usize = 64 * 1024;
/// Most entries of a directory that is given as JSON; of larger ones paths and archives are.
pub const LISTED_MAX: usize = 64 * 1024;
/// Directories that are listed at a time.
const LISTS_MAX: usize = 16;
/// How long a list waits for others.
const LIST_WAIT: Duration = Duration::from_secs(5);

const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const BYTES_TYPE: &str = "application/octet-stream";
const CACHE_FOREVER: &str = "public, max-age=29030400, immutable";
/// When a client that was one too many may ask again.
const RETRY_AFTER_SECONDS: u64 = 5;

/// How a gateway serves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Blocks that are not given out, under no name and as no part of anything.
    pub denied: BTreeSet<Cid>,
    /// Archives that are sent at a time.
    pub cars_max: usize,
    /// How long a client may leave an answer lying before it is broken off.
    pub stall_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { denied: BTreeSet::new(), cars_max: 64, stall_max: Duration::from_secs(60) }
    }
}

/// The routes below `/ipfs/` over a store.
pub fn router<S: BlockStore + Send + Sync + 'static>(store: Arc<S>) -> Router {
    router_with(store, Settings::default())
}

/// The same with settings.
pub fn router_with<S: BlockStore + Send + Sync + 'static>(store: Arc<S>, settings: Settings) -> Router {
    let denied = settings.denied.iter().map(|cid| *cid.digest()).collect();
    let serving = Serving {
        store: Arc::new(Permitted { store, denied }),
        cars: Arc::new(Semaphore::new(settings.cars_max)),
        lists: Arc::new(Semaphore::new(LISTS_MAX)),
        stall_max: settings.stall_max,
    };
    let methods = || get(serve::<S>).options(async || StatusCode::NO_CONTENT);
    Router::new()
        .route("/ipfs/{cid}", methods())
        .route("/ipfs/{cid}/", methods())
        .route("/ipfs/{cid}/{*path}", methods())
        .layer(middleware::map_response(open_to_browsers))
        .with_state(serving)
}

/// What all requests share.
struct Serving<S> {
    store: Arc<Permitted<S>>,
    cars: Arc<Semaphore>,
    /// Directories that are listed at a time: the large ones take many blocks and much memory.
    lists: Arc<Semaphore>,
    stall_max: Duration,
}

impl<S> Clone for Serving<S> {
    fn clone(&self) -> Self {
        let Self { store, cars, lists, stall_max } = self;
        Self { store: Arc::clone(store), cars: Arc::clone(cars), lists: Arc::clone(lists), stall_max: *stall_max }
    }
}

/// A store without the blocks that are not given out.
struct Permitted<S> {
    store: Arc<S>,
    denied: BTreeSet<[u8; 32]>,
}

impl<S: BlockStore> Permitted<S> {
    fn check(&self, cid: &Cid) -> Result<(), StoreError> {
        if self.denied.contains(cid.digest()) { Err(StoreError::Denied { cid: *cid }) } else { Ok(()) }
    }
}

impl<S: BlockStore> BlockStore for Permitted<S> {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        self.check(cid)?;
        self.store.get(cid)
    }

    fn put(&self, cid: &Cid, block: &[u8]) -> Result<(), StoreError> {
        self.check(cid)?;
        self.store.put(cid, block)
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        self.check(cid)?;
        self.store.has(cid)
    }
}

/// An answer out of the store of a gateway.
type AnswerFrom<S> = Answer<Arc<Permitted<S>>>;

/// An answer without a body: what is needed to say its headers.
enum Answer<S> {
    NotModified {
        etag: String,
    },
    Block {
        cid: Cid,
        block: Vec<u8>,
        range: Option<Range<u64>>,
    },
    /// The bytes of an identity CID, `is_raw` if asked for as a block.
    Inline {
        name: String,
        bytes: Vec<u8>,
        is_raw: bool,
    },
    File {
        content_type: &'static str,
        size: u64,
        range: Option<Range<u64>>,
        etag: String,
        reader: FileReader<S>,
    },
    /// A directory that is to be listed.
    Directory {
        cid: Cid,
    },
    List {
        cid: Cid,
        json: Vec<u8>,
        permit: OwnedSemaphorePermit,
    },
    Car {
        etag: String,
        has_dups: bool,
        /// The root of the archive in binary form.
        root: Vec<u8>,
        /// Nothing lies below an identity CID.
        traversal: Option<Traversal<S>>,
    },
}

#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error("{0}")]
    Cid(CidError),
    #[error("identity CIDs are served if they hold plain bytes")]
    Inline,
    #[error("format {0:?} is not served: raw and car are, and plain content without a format")]
    Format(String),
    #[error("the parameter {0} has a value that is not understood")]
    Parameter(&'static str),
    #[error(
        "{0} is not made here: application/vnd.ipld.raw and application/vnd.ipld.car (version=1; order=dfs; dups=y or \
         n) are, and plain content"
    )]
    NotAcceptable(String),
    #[error("a service worker has to lie in a directory")]
    ServiceWorker,
    #[error("the file has {size} bytes, none of them in the range")]
    Range { size: u64 },
    #[error("the file has {size} bytes, none of them in entity-bytes")]
    EntityBytes { size: u64 },
    #[error("block {cid} is not here, and only what is was asked for")]
    NotCached { cid: Cid },
    #[error("too much is being sent: ask again in {RETRY_AFTER_SECONDS} seconds, or for blocks")]
    Busy,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("reading stopped")]
    Stopped,
}

async fn serve<S: BlockStore + Send + Sync + 'static>(
    State(serving): State<Serving<S>>,
    Path(names): Path<Names>,
    Query(query): Query<Names>,
    headers: HeaderMap,
) -> Result<Response, GatewayError> {
    let request = Arc::new(Request::parse(&names, &query, &headers)?);
    let permit = match request.form {
        Form::Car(_) => Some(Arc::clone(&serving.cars).try_acquire_owned().map_err(|_| GatewayError::Busy)?),
        Form::Plain | Form::Raw => None,
    };
    let answering = tokio::task::spawn_blocking({
        let (store, request) = (Arc::clone(&serving.store), Arc::clone(&request));
        move || answer(store, &request)
    });
    let (answer, roots) = answering.await.map_err(|_| GatewayError::Stopped)?.map_err(|error| match error {
        GatewayError::Read(ReadError::Missing { cid }) if request.is_only_if_cached => GatewayError::NotCached { cid },
        error => error,
    })?;
    let answer = match answer {
        Answer::Directory { cid } => list_answer(&serving, cid).await?,
        answer => answer,
    };
    let mut response = answer.into_response(serving.stall_max, permit);
    set_common_headers(response.headers_mut(), &request, &roots);
    Ok(response)
}

/// What every answer says; `roots` are the names along the path.
fn set_common_headers(headers: &mut HeaderMap, request: &Request, roots: &str) {
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::CACHE_CONTROL, CACHE_FOREVER);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::VARY, "accept");
    set(HeaderName::from_static("x-ipfs-path"), &request::path_text(&request.root, &request.path));
    set(HeaderName::from_static("x-ipfs-roots"), roots);
    if let Some(location) = &request.content_location {
        set(header::CONTENT_LOCATION, location);
    }
    let end = roots.rsplit(',').next().unwrap_or_default();
    if let Some(disposition) = disposition(request, end) {
        set(header::CONTENT_DISPOSITION, &disposition);
    }
}

/// Whether a browser is to show or to save an answer, and under which name; `end` is the name of what it holds.
fn disposition(request: &Request, end: &str) -> Option<String> {
    let named = |name: &str| filename_parameters(name);
    let given = request.filename.as_deref();
    let attached = |default: String| format!("attachment{}", named(given.unwrap_or(&default)));
    match request.form {
        // No browser shall render these.
        Form::Raw => Some(attached(format!("{end}.bin"))),
        Form::Car(_) => Some(attached(format!("{end}.car"))),
        Form::Plain if request.is_download => Some(format!("attachment{}", given.map(named).unwrap_or_default())),
        Form::Plain => given.map(|name| format!("inline{}", named(name))),
    }
}

/// The parameters that name a download, in ASCII and, where that is not enough, in full.
fn filename_parameters(name: &str) -> String {
    let is_plain = |character: char| matches!(character, ' '..='~') && !matches!(character, '"' | '\\' | '/');
    let ascii: String = name.chars().map(|character| if is_plain(character) { character } else { '_' }).collect();
    if ascii == name {
        return format!("; filename=\"{ascii}\"");
    }
    format!("; filename=\"{ascii}\"; filename*=UTF-8''{}", request::percent_encoded(name))
}

/// Lets pages of any origin read answers and their headers: content is public, and nobody is logged in.
async fn open_to_browsers(mut response: Response) -> Response {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Accept, Cache-Control, Content-Type, If-None-Match, If-Range, Range, User-Agent, X-Requested-With",
        ),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "Content-Disposition, Content-Length, Content-Location, Content-Range, Etag, X-Ipfs-Path, X-Ipfs-Roots",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The answer, and the names along the path, each behind a comma but the first.
fn answer<S: BlockStore>(store: Arc<Permitted<S>>, request: &Request) -> Result<(AnswerFrom<S>, String), GatewayError> {
    let root = match &request.root {
        Root::Block(cid) => cid,
        Root::Inline { cid, bytes } => return Ok((inline_answer(request, cid, bytes)?, request.root.to_string())),
    };
    let path = resolve_path(&store, root, &request.path)?;
    let text = path.roots().map(Cid::to_string).collect::<Vec<_>>().join(",");
    let end = path.end;
    let answer = match request.form {
        Form::Raw => raw_answer(&*store, request, end)?,
        Form::Car(car) => car_answer(store, request, root, &end, car)?,
        Form::Plain => plain_answer(store, request, end)?,
    };
    Ok((answer, text))
}

fn inline_answer<S>(request: &Request, cid: &[u8], bytes: &[u8]) -> Result<Answer<S>, GatewayError> {
    let name = request.root.to_string();
    if request.path.split('/').any(|name| !name.is_empty()) {
        // An identity CID has no name that a store knows.
        let below = Cid::of_raw_block(bytes);
        return Err(ReadError::NotADirectory { cid: below }.into());
    }
    let etag = match request.form {
        Form::Car(car) => format!("W/\"{name}.car.{}\"", car.scope.name()),
        Form::Raw => format!("\"{name}.raw\""),
        Form::Plain => format!("\"{name}\""),
    };
    if request.has(&etag) {
        return Ok(Answer::NotModified { etag });
    }
    Ok(match request.form {
        Form::Car(car) => Answer::Car { etag, has_dups: car.has_dups, root: cid.to_vec(), traversal: None },
        form => Answer::Inline { name, bytes: bytes.to_vec(), is_raw: form == Form::Raw },
    })
}

fn raw_answer<S: BlockStore, T>(store: &S, request: &Request, cid: Cid) -> Result<Answer<T>, GatewayError> {
    let etag = block_etag(&cid);
    if request.has(&etag) && store.has(&cid).map_err(ReadError::from)? {
        return Ok(Answer::NotModified { etag });
    }
    let block = store.get(&cid).map_err(ReadError::from)?.ok_or(ReadError::Missing { cid })?;
    let range = request.range_within(&etag, block.len() as u64)?;
    Ok(Answer::Block { cid, block, range })
}

fn car_answer<S: BlockStore>(
    store: Arc<Permitted<S>>,
    request: &Request,
    root: &Cid,
    end: &Cid,
    car: Car,
) -> Result<AnswerFrom<S>, GatewayError> {
    let scope = match car.scope.of_file(None)? {
        Scope::Entity => {
            let size = match stat(&store, end) {
                Ok(Object::File { size }) => Some(size),
                Ok(Object::Directory) | Err(ReadError::Node { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            car.scope.of_file(size)?
        }
        scope => scope,
    };
    let traversal = Traversal::open(store, root, &request.path, scope, car.has_dups)?;
    let etag = car_etag(request, root, car);
    if request.has(&etag) {
        return Ok(Answer::NotModified { etag });
    }
    Ok(Answer::Car { etag, has_dups: car.has_dups, root: end.to_bytes(), traversal: Some(traversal) })
}

fn plain_answer<S: BlockStore>(
    store: Arc<Permitted<S>>,
    request: &Request,
    cid: Cid,
) -> Result<AnswerFrom<S>, GatewayError> {
    let size = match stat(&store, &cid)? {
        Object::Directory => {
            let etag = directory_etag(&cid);
            if request.has(&etag) {
                return Ok(Answer::NotModified { etag });
            }
            return Ok(Answer::Directory { cid });
        }
        Object::File { size } => size,
    };
    let etag = format!("\"{cid}\"");
    if request.has(&etag) {
        return Ok(Answer::NotModified { etag });
    }
    let start = read_range(&store, &cid, 0..SNIFF_SIZE as u64, SNIFF_SIZE as u64)?;
    let content_type = content_type(&start, start.len() as u64 == size);
    let range = request.range_within(&etag, size)?;
    let reader = FileReader::open(store, &cid, range.clone().unwrap_or(0..size), u64::MAX)?;
    Ok(Answer::File { content_type, size, range, etag, reader })
}

/// Lists a directory, when there is time for it: a large one takes many blocks and much memory until it is sent.
async fn list_answer<S: BlockStore + Send + Sync + 'static>(
    serving: &Serving<S>,
    cid: Cid,
) -> Result<AnswerFrom<S>, GatewayError> {
    let permit = tokio::time::timeout(LIST_WAIT, Arc::clone(&serving.lists).acquire_owned()).await;
    let permit = permit.ok().and_then(Result::ok).ok_or(GatewayError::Busy)?;
    let store = Arc::clone(&serving.store);
    let listing = tokio::task::spawn_blocking(move || {
        let entries = list_at_most(&store, &cid, LISTED_MAX)?;
        serde_json::to_vec(&Listing::new(&cid, &entries)).map_err(|_| GatewayError::Stopped)
    });
    let json = listing.await.map_err(|_| GatewayError::Stopped)??;
    Ok(Answer::List { cid, json, permit })
}

fn content_type(start: &[u8], is_whole: bool) -> &'static str {
    if is_text(start, is_whole) { TEXT_TYPE } else { BYTES_TYPE }
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

fn block_etag(cid: &Cid) -> String {
    format!("\"{cid}.raw\"")
}

fn directory_etag(cid: &Cid) -> String {
    format!("\"{cid}.json\"")
}

/// The tag of an archive. It is weak: other versions of this program may put the same blocks otherwise.
fn car_etag(request: &Request, root: &Cid, car: Car) -> String {
    let bytes = match car.scope {
        request::CarScope::Bytes(bytes) => bytes.to_string(),
        _ => String::new(),
    };
    let digest = Sha256::digest(format!("{}\n{bytes}", request::path_text(&request.root, &request.path)));
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let dups = if car.has_dups { 'y' } else { 'n' };
    format!("W/\"{root}.car.{}_{dups}_{digest}\"", car.scope.name())
}

impl<S: BlockStore + Send + 'static> Answer<S> {
    fn into_response(self, stall_max: Duration, permit: Option<OwnedSemaphorePermit>) -> Response {
        match self {
            Self::NotModified { etag } => (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response(),
            Self::Block { cid, mut block, range } => {
                let size = block.len() as u64;
                if let Some(range) = &range {
                    // Within a block, which lies in memory.
                    block.truncate(range.end as usize);
                    block.drain(..range.start as usize);
                }
                bytes_response(RAW_BLOCK_TYPE, block_etag(&cid), size, range, Body::from(block))
            }
            Self::Inline { name, bytes, is_raw } => {
                let (content_type, etag) = match is_raw {
                    true => (RAW_BLOCK_TYPE, format!("\"{name}.raw\"")),
                    false => (content_type(&bytes, true), format!("\"{name}\"")),
                };
                bytes_response(content_type, etag, bytes.len() as u64, None, Body::from(bytes))
            }
            // Listed before.
            Self::Directory { .. } => GatewayError::Stopped.into_response(),
            Self::List { cid, json, permit } => {
                let headers = [
                    (header::CONTENT_TYPE, "application/json".to_owned()),
                    (header::CONTENT_LENGTH, json.len().to_string()),
                    (header::ETAG, directory_etag(&cid)),
                ];
                (headers, stream::bytes_body(json, stall_max, permit)).into_response()
            }
            Self::File { content_type, size, range, etag, reader } => {
                bytes_response(content_type, etag, size, range, stream::file_body(reader, stall_max))
            }
            Self::Car { etag, has_dups, root, traversal } => {
                let dups = if has_dups { 'y' } else { 'n' };
                let headers = [
                    (header::CONTENT_TYPE, format!("{CAR_TYPE}; version=1; order=dfs; dups={dups}")),
                    (header::ACCEPT_RANGES, "none".to_owned()),
                    (header::ETAG, etag),
                ];
                let header = encode_header(&[root]);
                let body = match (traversal, permit) {
                    (Some(traversal), Some(permit)) => stream::car_body(header, traversal, stall_max, permit),
                    _ => Body::from(header),
                };
                (headers, body).into_response()
            }
        }
    }
}

/// Bytes of which a range can be had; `size` is that of all of them.
fn bytes_response(content_type: &str, etag: String, size: u64, range: Option<Range<u64>>, body: Body) -> Response {
    let length = range.as_ref().map_or(size, |range| range.end - range.start);
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, etag),
    ];
    let Some(Range { start, end }) = range else {
        return (headers, body).into_response();
    };
    let content_range = [(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1))];
    (StatusCode::PARTIAL_CONTENT, headers, content_range, body).into_response()
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
    fn not_acceptable(what: &str) -> Self {
        Self::NotAcceptable(what.to_owned())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Cid(_)
            | Self::Inline
            | Self::Format(_)
            | Self::Parameter(_)
            | Self::ServiceWorker
            | Self::EntityBytes { .. }
            | Self::Read(ReadError::PathTooDeep) => StatusCode::BAD_REQUEST,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::NotCached { .. } => StatusCode::PRECONDITION_FAILED,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Read(ReadError::Store(StoreError::Denied { .. })) => StatusCode::GONE,
            Self::Read(
                ReadError::Node { source: NodeError::Kind(_), .. }
                | ReadError::Foreign { .. }
                | ReadError::TooManyEntries { .. },
            ) => StatusCode::NOT_IMPLEMENTED,
            // Of what is here under this name nothing can be read: it is no file and no directory.
            Self::Read(
                ReadError::Missing { .. }
                | ReadError::NoEntry { .. }
                | ReadError::NotADirectory { .. }
                | ReadError::Node { .. }
                | ReadError::EntryName { .. },
            ) => StatusCode::NOT_FOUND,
            Self::Read(_) | Self::Stopped => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, TEXT_TYPE), (header::CACHE_CONTROL, "no-store")];
        let mut response = (self.status(), headers, format!("{self}\n")).into_response();
        let header = match self {
            Self::Range { size } => Some((header::CONTENT_RANGE, format!("bytes */{size}"))),
            Self::Busy => Some((header::RETRY_AFTER, RETRY_AFTER_SECONDS.to_string())),
            _ => None,
        };
        if let Some((name, value)) = header
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn downloads_are_named_so_that_every_browser_understands() {
        for (name, expected) in [
            ("a file.txt", "; filename=\"a file.txt\""),
            ("testтест.pdf", "; filename=\"test____.pdf\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.pdf"),
            ("a\"b\r\n", "; filename=\"a_b__\"; filename*=UTF-8''a%22b%0D%0A"),
        ] {
            assert_eq!(filename_parameters(name), expected);
        }
    }
}
