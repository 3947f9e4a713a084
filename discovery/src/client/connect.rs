//! Connections to controllers: by every address that a name has, one after the other and soon side by side (RFC 8305).

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};

use super::ClientError;
use crate::tls::ForeignAuthority;

/// One address takes no longer, with its handshake.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The next address is tried beside one that has not answered for so long (RFC 8305 section 5, Connection Attempt Delay).
const NEXT: Duration = Duration::from_millis(250);
/// A controller that is silent is asked, and is away when it does not answer.
const PING: Duration = Duration::from_secs(10);
/// The port of controllers.
pub const PORT: u16 = 8443;

/// `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
pub(super) fn split(address: &str) -> (String, u16) {
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return (socket.ip().to_string(), socket.port());
    }
    if address.parse::<IpAddr>().is_ok() {
        return (address.to_owned(), PORT);
    }
    match address.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host.to_owned(), port),
            Err(_) => (address.to_owned(), PORT),
        },
        None => (address.to_owned(), PORT),
    }
}

/// In which order addresses are tried: as the resolver sorted them (RFC 6724), the families in turns (RFC 8305 section 4).
fn in_turns(addresses: impl IntoIterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut addresses: VecDeque<SocketAddr> = addresses.into_iter().collect();
    let Some(first) = addresses.front().copied() else {
        return addresses;
    };
    let (mut own, mut other): (VecDeque<_>, VecDeque<_>) = addresses
        .drain(..)
        .partition(|one| one.is_ipv4() == first.is_ipv4());
    let mut sorted = VecDeque::new();
    while !own.is_empty() || !other.is_empty() {
        sorted.extend(own.pop_front());
        sorted.extend(other.pop_front());
    }
    sorted
}

/// TLS with the first of a host's addresses that answers as it should.
///
/// # Errors
/// What TLS says, where it comes to that with one of them; else what each of them says.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    tls: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    race(host, in_turns(addresses), tls).await
}

async fn race(
    host: &str,
    mut addresses: VecDeque<SocketAddr>,
    tls: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    let mut attempts = JoinSet::new();
    let mut said: Vec<String> = Vec::new();
    let mut refused = None;
    loop {
        if let Some(address) = addresses.pop_front() {
            let (name, tls) = (name.clone(), tls.clone());
            attempts.spawn(async move { (address, attempt(address, name, tls).await) });
        }
        let answered = match addresses.is_empty() {
            true => attempts.join_next().await,
            false => match tokio::time::timeout(NEXT, attempts.join_next()).await {
                Ok(answered) => answered,
                // It goes on beside the next one.
                Err(_) => continue,
            },
        };
        match answered {
            Some(Ok((_, Ok(stream)))) => return Ok(stream),
            // TLS speaks of its errors as those of data.
            Some(Ok((_, Err(error)))) if error.kind() == ErrorKind::InvalidData => {
                refused = Some(error);
            }
            Some(Ok((address, Err(error)))) => said.push(format!("{}: {error}", address.ip())),
            Some(Err(error)) => said.push(error.to_string()),
            None if addresses.is_empty() => break,
            None => {}
        }
    }
    Err(refused.unwrap_or_else(|| match said.is_empty() {
        true => Error::new(ErrorKind::NotFound, format!("{host} has no address")),
        false => Error::new(ErrorKind::NotConnected, said.join("; ")),
    }))
}

async fn attempt(
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(tls).connect(name, stream).await
    };
    match tokio::time::timeout(ATTEMPT, connect).await {
        Ok(connected) => connected,
        Err(_) => Err(Error::new(
            ErrorKind::TimedOut,
            format!("it does not answer within {} s", ATTEMPT.as_secs()),
        )),
    }
}

/// Why there is no connection with a controller.
pub(super) fn failed(address: &str, error: &(dyn std::error::Error + 'static)) -> ClientError {
    if let Some(foreign) = ForeignAuthority::find(error) {
        return ClientError::Foreign {
            address: address.to_owned(),
            foreign: foreign.clone(),
        };
    }
    let cause = crate::cause(error);
    let io = cause.downcast_ref::<Error>();
    let broken = cause.is::<tokio_rustls::rustls::Error>()
        || io.is_some_and(|error| error.kind() == ErrorKind::InvalidData);
    let error = match clock(cause) {
        Some(why) => why,
        None => cause.to_string(),
    };
    let address = address.to_owned();
    match broken {
        true => ClientError::Broken { address, error },
        false => ClientError::Unreachable { address, error },
    }
}

/// What a clock has to do with it, where one of the two ends is off.
fn clock(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    use tokio_rustls::rustls::AlertDescription::CertificateExpired;
    use tokio_rustls::rustls::CertificateError as Wrong;
    use tokio_rustls::rustls::Error::{AlertReceived, InvalidCertificate};
    let inside = error.downcast_ref::<Error>().and_then(Error::get_ref);
    let tls = match inside {
        Some(inside) => inside.downcast_ref::<tokio_rustls::rustls::Error>(),
        None => error.downcast_ref(),
    };
    let what = match tls? {
        InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. }) => {
            "the controller's certificate has expired"
        }
        InvalidCertificate(Wrong::NotValidYet | Wrong::NotValidYetContext { .. }) => {
            "the controller's certificate is not valid yet"
        }
        AlertReceived(CertificateExpired) => {
            "it takes this router's certificate for one that has expired"
        }
        _ => return None,
    };
    let now = time::OffsetDateTime::now_utc();
    Some(format!(
        "{what}: the clock here says {} {:02}:{:02} UTC; compare the clocks of the two, and set the one that is off",
        now.date(),
        now.hour(),
        now.minute()
    ))
}

/// A connection to a controller, which is who it should be.
pub(crate) async fn connect(address: &str, tls: ClientConfig) -> Result<Channel, ClientError> {
    let (host, port) = split(address);
    let tls = Arc::new(tls);
    let connect = tower::service_fn(move |_| {
        let (host, tls) = (host.clone(), tls.clone());
        async move { Ok::<_, Error>(TokioIo::new(dial(&host, port, tls).await?)) }
    });
    let endpoint = Endpoint::from_static("http://controller")
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect_with_connector(connect).await;
    channel.map_err(|error| failed(address, &error))
}

/// The same to the first of several, `A,B,C`, that is there.
pub(crate) async fn connect_any(
    addresses: &str,
    first: usize,
    tls: &ClientConfig,
) -> Result<Channel, ClientError> {
    let addresses: Vec<&str> = addresses.split(',').map(str::trim).collect();
    let mut last = ClientError::Folder("there is no controller's address".into());
    for at in 0..addresses.len() {
        match connect(addresses[(first + at) % addresses.len()], tls.clone()).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use tokio::net::TcpListener;

    use super::*;
    use crate::pki::Authority;
    use crate::tls::{Trust, client, server};

    /// The first of a name's addresses takes connections and says nothing, the second refuses them: the third is the controller.
    #[tokio::test]
    async fn an_address_that_is_dead_does_not_hide_the_next() {
        let (key, certificate) = Authority::create("lab").unwrap();
        let authority = Authority::load("lab", &key, &certificate).unwrap();
        let (certificate, key) = authority.server(&["ctl.example".into()]).unwrap();
        let tls = server(&certificate, &key, authority.certificate()).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (silent, gone, controller) = (listen().await, listen().await, listen().await);
        let (silent, gone, controller) = (silent.unwrap(), gone.unwrap(), controller.unwrap());
        let addresses = [&silent, &gone, &controller];
        let addresses = addresses.map(|one| one.local_addr().unwrap());
        drop(gone);
        tokio::spawn(async move {
            let (stream, _) = controller.accept().await.unwrap();
            let _stream = acceptor.accept(stream).await.unwrap();
            std::future::pending::<()>().await;
        });
        let trust = Trust::Fingerprint(authority.fingerprint());
        let tls = Arc::new(client(&trust, None).unwrap());
        let connected = race("ctl.example", addresses.into(), tls.clone()).await;
        let peer = connected.unwrap().get_ref().0.peer_addr().unwrap();
        assert_eq!(peer, addresses[2]);
        // Where nobody answers, each is named.
        let error = race("ctl.example", VecDeque::from([addresses[1]]), tls).await;
        assert!(error.unwrap_err().to_string().contains("127.0.0.1: "));
    }

    #[test]
    fn a_clock_that_is_off_is_named() {
        use tokio_rustls::rustls::CertificateError;
        for (error, word) in [
            (CertificateError::Expired, "has expired"),
            (CertificateError::NotValidYet, "not valid yet"),
        ] {
            let tls = tokio_rustls::rustls::Error::InvalidCertificate(error);
            let why = failed("a:1", &Error::new(ErrorKind::InvalidData, tls)).to_string();
            assert!(why.contains(word) && why.contains("clock"), "{why}");
        }
    }

    #[test]
    fn addresses_of_controllers() {
        for (text, host, port) in [
            ("10.0.0.1", "10.0.0.1", PORT),
            ("10.0.0.1:9000", "10.0.0.1", 9000),
            ("[2001:db8::1]:9000", "2001:db8::1", 9000),
            ("2001:db8::1", "2001:db8::1", PORT),
            ("ctl.example", "ctl.example", PORT),
            ("ctl.example:9000", "ctl.example", 9000),
        ] {
            assert_eq!(split(text), (host.to_owned(), port), "{text}");
        }
    }

    #[test]
    fn families_take_turns() {
        let socket = |text: &str| -> SocketAddr { SocketAddr::new(text.parse().unwrap(), 1) };
        let sorted = |texts: &[&str]| -> Vec<String> {
            let sorted = in_turns(texts.iter().map(|one| socket(one)));
            sorted.iter().map(|one| one.ip().to_string()).collect()
        };
        assert_eq!(
            sorted(&["2001:db8::1", "2001:db8::2", "192.0.2.1"]),
            ["2001:db8::1", "192.0.2.1", "2001:db8::2"]
        );
        assert_eq!(
            sorted(&["192.0.2.1", "192.0.2.2"]),
            ["192.0.2.1", "192.0.2.2"]
        );
        assert!(sorted(&[]).is_empty());
    }
}
