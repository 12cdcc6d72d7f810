//! Services in IPVS, as kube-proxy sets them up: their addresses on a device that stays down, and NAT to their backends.

use std::io;
use std::net::SocketAddrV4;

use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};
use sabot_testkit::Netns;

/// What kube-proxy calls it.
pub(crate) const DEVICE: &str = "kube-ipvs0";

// From linux/netlink.h and linux/genetlink.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Of a message with the command's own header behind it.
const HEADERS: usize = 16 + 4;

// From linux/ip_vs.h.
const IPVS_CMD_NEW_SERVICE: u8 = 1;
const IPVS_CMD_NEW_DEST: u8 = 5;
const IPVS_CMD_FLUSH: u8 = 17;
const IPVS_CMD_ATTR_SERVICE: u16 = 1;
const IPVS_CMD_ATTR_DEST: u16 = 2;
const IP_VS_CONN_F_MASQ: u32 = 0;
const TCP: u16 = 6;

/// The IPVS of one network namespace.
pub(crate) struct Ipvs {
    socket: Socket,
    family: u16,
}

impl Ipvs {
    /// # Errors
    ///
    /// `NotFound`: this kernel has no IPVS, or hasn't loaded its module.
    pub(crate) fn of(netns: &Netns) -> io::Result<Self> {
        let socket = netns.run(|| {
            let mut socket = Socket::new(NETLINK_GENERIC)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0)).map(|()| socket)
        })?;
        let unnamed = Self {
            socket,
            family: GENL_ID_CTRL,
        };
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"IPVS\0");
        let answer = unnamed.ask(CTRL_CMD_GETFAMILY, &name)?;
        let family = family_id(&answer).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { family, ..unnamed })
    }

    /// Replaces all Services by these, each with its backends.
    pub(crate) fn replace(
        &self,
        services: impl Iterator<Item = (SocketAddrV4, Vec<SocketAddrV4>)>,
    ) -> io::Result<()> {
        self.ask(IPVS_CMD_FLUSH, &[])?;
        for (front, backends) in services {
            let key = [
                attribute(1, &(libc::AF_INET as u16).to_ne_bytes()),
                attribute(2, &TCP.to_ne_bytes()),
                attribute(3, &address(front)),
                attribute(4, &front.port().to_be_bytes()),
            ]
            .concat();
            let settings = [
                attribute(6, b"rr\0"),
                // No flag of all that there are.
                attribute(7, &[[0; 4], [0xff; 4]].concat()),
                attribute(8, &0_u32.to_ne_bytes()),
                attribute(9, &[0xff; 4]),
            ];
            let service = attribute(IPVS_CMD_ATTR_SERVICE, &[key.clone(), settings.concat()].concat());
            self.ask(IPVS_CMD_NEW_SERVICE, &service)?;
            for backend in backends {
                let service = attribute(IPVS_CMD_ATTR_SERVICE, &key);
                let backend = attribute(IPVS_CMD_ATTR_DEST, &destination(backend));
                self.ask(IPVS_CMD_NEW_DEST, &[service, backend].concat())?;
            }
        }
        Ok(())
    }

    /// Sends a command and returns the attributes of its answer, if it has one.
    fn ask(&self, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
        let length = (HEADERS + attributes.len()) as u32;
        let mut message = Vec::new();
        message.extend(length.to_ne_bytes());
        message.extend(self.family.to_ne_bytes());
        message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        self.socket.send(&message, 0)?;
        let mut answer = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while rest.len() > 16 {
                let length = u32::from_ne_bytes(rest[..4].try_into().expect("four bytes")) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                if kind != NLMSG_ERROR {
                    answer = rest[HEADERS..length].to_vec();
                    rest = &rest[aligned(length).min(rest.len())..];
                    continue;
                }
                // Zero is an acknowledgement.
                let errno = i32::from_ne_bytes(rest[16..20].try_into().expect("four bytes"));
                return match errno {
                    0 => Ok(answer),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
        }
    }
}

fn destination(backend: SocketAddrV4) -> Vec<u8> {
    [
        attribute(1, &address(backend)),
        attribute(2, &backend.port().to_be_bytes()),
        attribute(3, &IP_VS_CONN_F_MASQ.to_ne_bytes()),
        attribute(4, &1_u32.to_ne_bytes()),
        // No bounds to the number of its connections.
        attribute(5, &0_u32.to_ne_bytes()),
        attribute(6, &0_u32.to_ne_bytes()),
    ]
    .concat()
}

/// In the room that an IPv6 address has.
fn address(end: SocketAddrV4) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&end.ip().octets());
    bytes
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = 4 + payload.len();
    let mut bytes = Vec::new();
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(aligned(length), 0);
    bytes
}

fn family_id(mut attributes: &[u8]) -> Option<u16> {
    while let [a, b, c, d, payload @ ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        if u16::from_ne_bytes([*c, *d]) == CTRL_ATTR_FAMILY_ID {
            return Some(u16::from_ne_bytes([*payload.first()?, *payload.get(1)?]));
        }
        attributes = attributes.get(aligned(length)..)?;
    }
    None
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}
