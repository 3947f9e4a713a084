//! One transport connection: how it is opened, and its reader and writer.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use weft_bgp_core::session::ConnectionId;
use weft_bgp_core::speaker::NeighborConfig;

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
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

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

/// What reaches a writer.
pub(crate) enum Write {
    Octets(Bytes),
    /// The last octets; then the connection closes.
    Close(Vec<Bytes>),
}

/// Starts reader and writer; returns the queue of the writer.
pub(crate) fn spawn(
    io: &Handle,
    id: ConnectionId,
    stream: TcpStream,
    send_hold: Duration,
    events: mpsc::Sender<Event>,
) -> mpsc::Sender<Write> {
    let (read, write) = stream.into_split();
    let (queue, pieces) = mpsc::channel(WRITE_QUEUE);
    let reader = io.spawn(reader(id, read, events.clone()));
    io.spawn(async move {
        let result = writer(write, pieces, send_hold, &events).await;
        if let Err(error) = result {
            let _ = events.send(Event::Closed(id, error.to_string())).await;
        }
        // The speaker has let go of the connection: nobody listens to the reader any more.
        reader.abort();
    });
    queue
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

async fn writer(
    mut stream: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<Write>,
    send_hold: Duration,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_QUEUE);
    loop {
        let mut octets: Vec<Bytes> = Vec::new();
        let mut last = pieces.recv_many(&mut batch, WRITE_QUEUE).await == 0;
        for write in batch.drain(..) {
            match write {
                Write::Octets(piece) => octets.push(piece),
                Write::Close(pieces) => {
                    octets.extend(pieces);
                    last = true;
                }
            }
        }
        if last {
            let close = async {
                write_all(&mut stream, &octets, CLOSE_TIMEOUT).await?;
                stream.shutdown().await
            };
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
            return Ok(());
        }
        write_all(&mut stream, &octets, send_hold).await?;
        if pieces.is_empty() {
            let _ = events.send(Event::Writable).await;
        }
    }
}

/// Writes all pieces with as few system calls as the kernel allows. Where none of them gets on for `patience` the connection is reset: what
/// waits in it would else keep it from closing.
async fn write_all(
    stream: &mut OwnedWriteHalf,
    pieces: &[Bytes],
    patience: Duration,
) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let write = stream.write_vectored(rest);
        let Ok(written) = tokio::time::timeout(patience, write).await else {
            SockRef::from(stream.as_ref()).set_linger(Some(Duration::ZERO))?;
            let seconds = patience.as_secs();
            let text = format!("send hold timer expired: it took nothing for {seconds} s");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        };
        let written = written?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}
