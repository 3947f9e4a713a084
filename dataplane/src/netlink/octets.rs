//! Netlink messages and attributes to and from octets (host byte order, 4-octet alignment).

/// Octets of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// Appends one message whose payload `body` writes.
pub(crate) fn message(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    align(out);
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends one attribute.
pub(crate) fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    align(out);
}

/// Appends a 4-octet attribute.
pub(crate) fn attribute_u32(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, &value.to_ne_bytes());
}

/// Appends an attribute whose value is the attributes that `body` writes.
pub(crate) fn nested(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
    body(out);
    let len = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&len.to_ne_bytes());
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Whom it is for; of an event, who caused it, 0 where the kernel itself did.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

impl Message<'_> {
    /// The four octets of the payload there.
    pub(crate) fn word(&self, at: usize) -> Option<u32> {
        self.payload.get(at..at + 4).and_then(as_u32)
    }
}

/// The messages of one datagram.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER)?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let len = word(0) as usize;
        let payload = datagram.get(HEADER..len)?;
        let message = Message {
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            port: word(12),
            payload,
        };
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `octets`, with the flags of their types masked out.
pub(crate) fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = octets.get(..4)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = octets.get(4..len)?;
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A 4-octet value.
pub(crate) fn as_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_there_and_back() {
        let mut out = Vec::new();
        message(&mut out, 24, 5, 7, |out| {
            out.extend_from_slice(&[1, 2, 3, 4]);
            attribute(out, 1, &[9; 5]);
            nested(out, 2, |out| attribute_u32(out, 3, 77));
        });
        message(&mut out, 25, 0, 8, |_| {});
        let all: Vec<Message<'_>> = messages(&out).collect();
        assert_eq!(
            (all.len(), all[0].kind, all[0].sequence, all[1].kind),
            (2, 24, 7, 25)
        );
        let inside: Vec<_> = attributes(&all[0].payload[4..]).collect();
        assert_eq!(inside[0], (1, &[9; 5][..]));
        assert_eq!(
            attributes(inside[1].1).next(),
            Some((3, &77u32.to_ne_bytes()[..]))
        );
    }

    #[test]
    fn no_octets_make_it_panic() {
        let mut out = Vec::new();
        message(&mut out, 24, 5, 7, |out| attribute(out, 1, &[9; 5]));
        for len in 0..out.len() {
            for octet in [0, 1, 0xff] {
                let mut bad = out.clone();
                bad[len] = octet;
                messages(&bad).for_each(|message| attributes(message.payload).for_each(drop));
                messages(&bad[..len])
                    .for_each(|message| attributes(message.payload).for_each(drop));
            }
        }
    }
}
