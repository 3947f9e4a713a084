//! TCP between hosts of a lab.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::Lab;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection from one host to an address of another: both ends.
pub fn connect(lab: &Lab, from: &str, (to, address): (&str, SocketAddr)) -> (TcpStream, TcpStream) {
    let listener = lab.in_node(to, || TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    let client = lab.in_node(from, || TcpStream::connect(address).unwrap());
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

/// What goes in at either end comes out at the other, in segments as large as may be.
pub fn carry_both_ways((one, other): (&TcpStream, &TcpStream)) {
    carry(one, other);
    carry(other, one);
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    const OCTETS: usize = 100_000;
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&[7; OCTETS]).unwrap());
        to.read_exact(&mut vec![0; OCTETS]).unwrap();
    });
}
