//! One transport connection: how it is opened, and its reader and writer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use weft_bgp_core::session::ConnectionId;
use weft_bgp_core::speaker::NeighborConfig;
use weft_bgp_wire::MessageType;

use crate::runtime::Event;
use crate::{Scope, secure};

/// Octets read at once.
const READ: usize = 64 * 1024;
/// Pieces that wait for a writer: about 1 MiB at most.
pub(crate) const WRITE_QUEUE: usize = 16;
/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where there are two keys to try: less than either is tried.
const CONNECT_TIMEOUT_OF_TWO: Duration = Duration::from_secs(2);
/// How long the last octets of a connection may take (SendHoldTimer of RFC 9687, shortened: the session is over).
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A neighbour that takes no octet for this long is gone, whatever it sends (RFC 9687): 8 minutes, or twice the hold time where that is
/// more.
pub(crate) fn send_hold_time(hold_time: Duration) -> Duration {
    const LEAST: Duration = Duration::from_secs(480);
    LEAST.max(hold_time * 2)
}

/// Opens a connection to a neighbour.
pub(crate) async fn connect(config: NeighborConfig, scope: Scope) -> io::Result<TcpStream> {
    let socket = if config.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    let options = SockRef::from(&socket);
    if let Some(device) = &scope.device {
        options.bind_device(Some(device.as_bytes()))?;
    }
    if scope.mark != 0 {
        options.set_mark(scope.mark)?;
    }
    if let Some(local) = config.local_address {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    prepare(&socket, &config)?;
    if let Some(password) = &config.password {
        secure::sign_connection(&socket, config.address, password)?;
    }
    let target = SocketAddr::new(config.address, config.port);
    let patience = match config.next_password {
        Some(_) => CONNECT_TIMEOUT_OF_TWO,
        None => CONNECT_TIMEOUT,
    };
    let stream = tokio::time::timeout(patience, socket.connect(target))
        .await
        .map_err(|_| {
            let text = format!("no answer within {} s", patience.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, text)
        })??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sets the TTL or hop limit of what we send, and what the neighbour's packets need.
pub(crate) fn prepare(socket: &impl AsFd, config: &NeighborConfig) -> io::Result<()> {
    let (options, ttl) = (SockRef::from(socket), u32::from(config.ttl));
    match config.address {
        IpAddr::V4(_) => options.set_ttl_v4(ttl)?,
        IpAddr::V6(_) => options.set_unicast_hops_v6(ttl)?,
    }
    match config.least_ttl {
        Some(least) => secure::expect_ttl(socket, config.address, least),
        None => Ok(()),
    }
}

/// A connection's writer. Where it is dropped, what waits is sent, and the connection closes.
pub(crate) struct Writer {
    /// Pieces of whole messages.
    pub(crate) pieces: mpsc::Sender<Bytes>,
    close: mpsc::Sender<Vec<Bytes>>,
    ended: JoinHandle<()>,
}

impl Writer {
    /// These are the last messages. Routes that wait are not sent any more: who ends a session tells so, whatever the neighbour reads.
    /// The task ends when they are with the kernel, or cannot be.
    pub(crate) fn close(self, last: Vec<Bytes>) -> JoinHandle<()> {
        // Where the writer has ended, so has the connection.
        let _ = self.close.try_send(last);
        self.ended
    }

    /// What waits are the last messages.
    pub(crate) fn finish(self) -> JoinHandle<()> {
        self.ended
    }
}

/// Starts reader and writer.
pub(crate) fn spawn(
    io: &Handle,
    id: ConnectionId,
    stream: TcpStream,
    send_hold: Duration,
    events: mpsc::Sender<Event>,
) -> Writer {
    let (read, write) = stream.into_split();
    let (queue, pieces) = mpsc::channel(WRITE_QUEUE);
    let (close, closing) = mpsc::channel(1);
    let reader = io.spawn(reader(id, read, events.clone()));
    let ended = io.spawn(async move {
        let result = writer(write, pieces, closing, send_hold, &events).await;
        if let Err(error) = result {
            let _ = events.send(Event::Closed(id, error.to_string())).await;
        }
        // The speaker has let go of the connection: nobody listens to the reader any more.
        reader.abort();
    });
    Writer {
        pieces: queue,
        close,
        ended,
    }
}

async fn reader(id: ConnectionId, mut stream: OwnedReadHalf, events: mpsc::Sender<Event>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        let error = match stream.read_buf(&mut buffer).await {
            Ok(0) => "closed by the neighbour".to_owned(),
            Ok(_) => {
                if events
                    .send(Event::Octets(id, buffer.split().freeze()))
                    .await
                    .is_err()
                {
                    return;
                }
                continue;
            }
            Err(error) => error.to_string(),
        };
        // Where the speaker has ended, nobody need know.
        let _ = events.send(Event::Closed(id, error)).await;
        return;
    }
}

/// What is to be written.
#[derive(Default)]
struct Waiting {
    /// Each of whole messages.
    pieces: VecDeque<Bytes>,
    /// The start of the first one is out.
    begun: bool,
}

impl Waiting {
    /// So many octets are out.
    fn advance(&mut self, mut octets: usize) {
        while let Some(first) = self.pieces.front_mut() {
            if octets < first.len() {
                first.advance(octets);
                self.begun |= octets > 0;
                return;
            }
            octets -= first.len();
            self.pieces.pop_front();
            self.begun = false;
        }
    }

    /// Leaves out routes that nothing is out of.
    fn drop_routes(&mut self) {
        const TYPE: usize = 18;
        let first = self.begun.then(|| self.pieces.pop_front()).flatten();
        self.pieces
            .retain(|piece| piece.get(TYPE) != Some(&(MessageType::Update as u8)));
        if let Some(first) = first {
            self.pieces.push_front(first);
        }
    }

    /// Writes as much as the kernel takes at once. Where it takes nothing for `patience` the connection is reset: what waits in it would else
    /// keep it from closing.
    async fn write(&mut self, stream: &mut OwnedWriteHalf, patience: Duration) -> io::Result<()> {
        let slices: Vec<IoSlice<'_>> = self.pieces.iter().map(|one| IoSlice::new(one)).collect();
        let write = stream.write_vectored(&slices);
        let Ok(written) = tokio::time::timeout(patience, write).await else {
            SockRef::from(stream.as_ref()).set_linger(Some(Duration::ZERO))?;
            let seconds = patience.as_secs();
            let text = format!("send hold timer expired: it took nothing for {seconds} s");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        };
        match written? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => {
                self.advance(written);
                Ok(())
            }
        }
    }
}

async fn writer(
    mut stream: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<Bytes>,
    mut closing: mpsc::Receiver<Vec<Bytes>>,
    send_hold: Duration,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_QUEUE);
    let mut waiting = Waiting::default();
    let last = loop {
        if waiting.pieces.is_empty() {
            tokio::select! {
                biased;
                Some(last) = closing.recv() => break last,
                more = pieces.recv_many(&mut batch, WRITE_QUEUE) => match more {
                    // Both ends come at once.
                    0 => break closing.try_recv().unwrap_or_default(),
                    _ => waiting.pieces.extend(batch.drain(..)),
                },
            }
        }
        tokio::select! {
            biased;
            Some(last) = closing.recv() => break last,
            written = waiting.write(&mut stream, send_hold) => written?,
        }
        if waiting.pieces.is_empty() && pieces.is_empty() {
            // The speaker takes no events any more when it ends.
            tokio::select! {
                biased;
                Some(last) = closing.recv() => break last,
                _ = events.send(Event::Writable) => {}
            }
        }
    };
    while let Ok(piece) = pieces.try_recv() {
        waiting.pieces.push_back(piece);
    }
    waiting.drop_routes();
    waiting.pieces.extend(last);
    let close = async {
        while !waiting.pieces.is_empty() {
            waiting.write(&mut stream, CLOSE_TIMEOUT).await?;
        }
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: MessageType, len: usize) -> Bytes {
        let mut octets = vec![0xff; 18];
        octets.push(kind as u8);
        octets.resize(len, 0);
        octets.into()
    }

    #[test]
    fn the_end_of_a_session_waits_for_no_routes_but_those_that_are_half_out() {
        let kinds = |waiting: &Waiting| -> Vec<usize> {
            waiting.pieces.iter().map(|piece| piece.len()).collect()
        };
        let mut waiting = Waiting::default();
        waiting.pieces.extend([
            message(MessageType::Open, 29),
            message(MessageType::Update, 1000),
            message(MessageType::Keepalive, 19),
            message(MessageType::Update, 2000),
        ]);
        waiting.advance(29 + 400);
        waiting.drop_routes();
        assert_eq!(kinds(&waiting), [600, 19]);
        waiting.advance(600);
        waiting.pieces.push_back(message(MessageType::Update, 3000));
        waiting.advance(0);
        waiting.drop_routes();
        assert_eq!(kinds(&waiting), [19]);
    }
}
