//! A connection that is written to, and whose other end has to take what it asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{PACE, STALL};

/// A stream that breaks where the other end takes what is written too slowly: nothing for [`STALL`], or less than [`PACE`] after that.
#[derive(Debug)]
pub struct Paced<S> {
    inner: S,
    /// Since when there is something that the other end has not taken, and how much it has of it.
    since: Option<Instant>,
    written: u64,
    end: Option<Pin<Box<Sleep>>>,
    stall: Duration,
}

impl<S> Paced<S> {
    /// Around a stream.
    pub fn new(inner: S) -> Self {
        Self::with(inner, STALL)
    }

    fn with(inner: S, stall: Duration) -> Self {
        Self {
            inner,
            stall,
            since: None,
            written: 0,
            end: None,
        }
    }

    /// What comes of a write: one that has to wait does so for as long as the pace allows.
    fn bound<T>(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
        amount: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match wrote {
            Poll::Ready(Ok(done)) => {
                self.written += amount(&done) as u64;
                self.end = None;
                return Poll::Ready(Ok(done));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {}
        }
        let (since, written, stall) = (&mut self.since, self.written, self.stall);
        let end = self.end.get_or_insert_with(|| {
            let since = *since.get_or_insert_with(Instant::now);
            let allowed = stall + Duration::from_secs(written / PACE);
            Box::pin(sleep_until(since + allowed))
        });
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the other end takes too little of what it asked for",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(context, octets);
        self.bound(context, wrote, |amount| *amount)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(context, octets);
        self.bound(context, wrote, |amount| *amount)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        let flushed = self.bound(context, flushed, |()| 0);
        if flushed.is_ready() {
            // All has been taken.
            (self.since, self.written) = (None, 0);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(context);
        self.bound(context, shut, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_or_too_little_is_not_waited_for() {
        for drip in [0, 1] {
            let (near, mut far) = duplex(1 << 10);
            let reader = tokio::spawn(async move {
                let mut octets = [0];
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    if drip > 0 && far.read(&mut octets).await.unwrap() == 0 {
                        return;
                    }
                }
            });
            let mut near = Paced::with(near, Duration::from_millis(50));
            let error = near.write_all(&[0; 1 << 20]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{drip}");
            reader.abort();
        }
    }

    #[tokio::test]
    async fn who_takes_it_gets_all_of_it() {
        let (near, mut far) = duplex(1 << 10);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        let mut near = Paced::new(near);
        near.write_all(&[0; 1 << 20]).await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(reader.await.unwrap(), 1 << 20);
    }
}
