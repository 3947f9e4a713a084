//! One end of a BGP session: opened, kept alive, written to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weft_bgp_wire::{
    Asn, Capability, HEADER_LEN, MAX_MESSAGE_LEN_EXTENDED, MessageType, Notification, Open,
    RouterId, encode_keepalive, next_frame,
};

/// Who opens a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
}

/// An established session. Reading is the monitor's; writing is shared with what keeps it alive.
pub(crate) struct Session {
    pub(crate) peer: Peer,
    pub(crate) stream: TcpStream,
    /// What came behind the handshake.
    pub(crate) early: Vec<u8>,
    writer: Mutex<TcpStream>,
}

/// Offered where a run does not ask for another, seconds.
const HOLD_TIME: u16 = 240;

impl Session {
    /// Connects until the speaker takes the session; it may be starting still.
    pub(crate) fn establish(
        peer: Peer,
        speaker: SocketAddr,
        hold_time: Option<u16>,
    ) -> Result<Self> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match Self::attempt(peer, speaker, hold_time.unwrap_or(HOLD_TIME)) {
                Ok(session) => return Ok(session),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn attempt(peer: Peer, speaker: SocketAddr, hold_time: u16) -> Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((peer.address, 0)).into())?;
        socket.set_tcp_nodelay(true)?;
        socket.connect_timeout(&speaker.into(), Duration::from_secs(2))?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let open = Open {
            my_as: Asn(peer.asn).to_two_octets(),
            hold_time,
            router_id: RouterId(peer.address),
            capabilities: vec![
                Capability::MultiProtocol(1, 1),
                Capability::RouteRefresh,
                Capability::FourOctetAs(Asn(peer.asn)),
            ],
        };
        let mut octets = Vec::new();
        open.encode(&mut octets);
        stream.write_all(&octets)?;
        let mut early = Vec::new();
        expect(&mut stream, &mut early, MessageType::Open)?;
        octets.clear();
        encode_keepalive(&mut octets);
        stream.write_all(&octets)?;
        expect(&mut stream, &mut early, MessageType::Keepalive)?;
        stream.set_read_timeout(None)?;
        Ok(Self {
            peer,
            writer: Mutex::new(stream.try_clone()?),
            stream,
            early,
        })
    }

    /// Sends all of a load. The octets are whole messages.
    pub(crate) fn send(&self, octets: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock().expect("no writer panics");
        writer.write_all(octets).context("sending the load")
    }

    /// Keeps the session alive, unless a load is being sent.
    pub(crate) fn keep_alive(&self) -> Result<()> {
        if let Ok(mut writer) = self.writer.try_lock() {
            let mut octets = Vec::new();
            encode_keepalive(&mut octets);
            writer.write_all(&octets)?;
        }
        Ok(())
    }
}

/// Reads up to the awaited message.
fn expect(stream: &mut TcpStream, buffer: &mut Vec<u8>, wanted: MessageType) -> Result<()> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = next_frame(buffer, MAX_MESSAGE_LEN_EXTENDED)
            .map_err(|error| anyhow::anyhow!("{error:?}"))?
        {
            let message: Vec<u8> = buffer.drain(..frame.len).collect();
            if frame.kind == MessageType::Notification {
                bail!("{}", Notification::decode(&message[HEADER_LEN..]));
            }
            if frame.kind == wanted {
                return Ok(());
            }
            continue;
        }
        match stream.read(&mut chunk) {
            Ok(0) => bail!("closed during the handshake"),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
