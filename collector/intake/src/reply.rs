//! The body of every answer: at most one piece, then perhaps gRPC's trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

#[derive(Debug, Default)]
pub(crate) struct Reply {
    piece: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Reply {
    pub(crate) fn of(piece: impl Into<Bytes>) -> Self {
        let piece = piece.into();
        Self { piece: (!piece.is_empty()).then_some(piece), trailers: None }
    }

    pub(crate) fn with_trailers(piece: Bytes, trailers: HeaderMap) -> Self {
        Self { piece: Some(piece), trailers: Some(trailers) }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.piece.take().map(Frame::data);
        let frame = piece.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.trailers {
            // A gRPC answer has no content-length.
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.piece.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
