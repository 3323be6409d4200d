//! Bodies that are made while they are sent.
//!
//! What ends well is whole: a block that is missing or damaged, and a client that stops reading, break the connection
//! off, so that nobody takes a part for all.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::GatewayError;
use crate::{
    car::put_section,
    read::{FileReader, ReadError},
    store::BlockStore,
    traversal::Traversal,
};

/// How much of an archive is read at a time, in bytes, unless one block is larger.
const PIECE_SIZE: usize = 256 * 1024;
/// Pieces that wait for the client.
const PIECES_WAITING_MAX: usize = 2;

/// What an archive is made of while it is sent.
struct Archive<S> {
    header: Vec<u8>,
    traversal: Traversal<S>,
    error: Option<ReadError>,
}

/// The pieces of a file.
pub(super) fn file_body<S: BlockStore + Send + 'static>(reader: FileReader<S>, stall_max: Duration) -> Body {
    body(reader, |reader| Some(reader.next()?.map(Bytes::from)), stall_max, None)
}

/// An archive: `header`, then the blocks of a traversal.
pub(super) fn car_body<S: BlockStore + Send + 'static>(
    header: Vec<u8>,
    traversal: Traversal<S>,
    stall_max: Duration,
    permit: OwnedSemaphorePermit,
) -> Body {
    let read = |archive: &mut Archive<S>| {
        let mut piece = std::mem::take(&mut archive.header);
        while piece.len() < PIECE_SIZE && archive.error.is_none() {
            match archive.traversal.next() {
                Some(Ok((cid, block))) => put_section(&mut piece, &cid, &block),
                // What was read before it is of use, and goes first.
                Some(Err(error)) => archive.error = Some(error),
                None => break,
            }
        }
        if piece.is_empty() { archive.error.take().map(Err) } else { Some(Ok(Bytes::from(piece))) }
    };
    body(Archive { header, traversal, error: None }, read, stall_max, Some(permit))
}

/// Bytes that are there already.
pub(super) fn bytes_body(bytes: Vec<u8>, stall_max: Duration, permit: OwnedSemaphorePermit) -> Body {
    let read = |rest: &mut Bytes| {
        let piece = rest.split_to(rest.len().min(PIECE_SIZE));
        (!piece.is_empty()).then_some(Ok(piece))
    };
    body(Bytes::from(bytes), read, stall_max, Some(permit))
}

/// What `read` gives until it gives nothing. Nothing is read before the body is wanted, which that of a `HEAD` never is.
fn body<T: Send + 'static>(
    source: T,
    read: impl Fn(&mut T) -> Option<Result<Bytes, ReadError>> + Send + Sync + Clone + 'static,
    stall_max: Duration,
    permit: Option<OwnedSemaphorePermit>,
) -> Body {
    let started = async move { start(source, read, stall_max, permit) };
    Body::from_stream(stream::once(started).flatten())
}

/// Starts a task that reads ahead. It ends with the source, with an error, and if nobody takes its pieces in time.
fn start<T: Send + 'static>(
    mut source: T,
    read: impl Fn(&mut T) -> Option<Result<Bytes, ReadError>> + Send + Sync + Clone + 'static,
    stall_max: Duration,
    permit: Option<OwnedSemaphorePermit>,
) -> impl Stream<Item = Result<Bytes, GatewayError>> {
    // `None` says that all was sent: a channel that closes without it was broken off.
    let (sender, pieces) = mpsc::channel::<Result<Option<Bytes>, GatewayError>>(PIECES_WAITING_MAX);
    tokio::spawn(async move {
        let _permit = permit;
        loop {
            let read = read.clone();
            let reading = tokio::task::spawn_blocking(move || (read(&mut source), source));
            let Ok((piece, source_after)) = reading.await else { return };
            source = source_after;
            let piece = piece.transpose().map_err(GatewayError::Read);
            let is_last = !matches!(piece, Ok(Some(_)));
            let sending = tokio::time::timeout(stall_max, sender.send(piece));
            if !matches!(sending.await, Ok(Ok(()))) || is_last {
                return;
            }
        }
    });
    stream::unfold(Some(pieces), |pieces| async {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Ok(Some(piece))) => Some((Ok(piece), Some(pieces))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(GatewayError::Stopped), None)),
        }
    })
}
