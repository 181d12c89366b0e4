//! UDP sockets with buffers large enough for thousands of connections. With the usual 208 KiB and 5,000 of them a
//! third of all datagrams was lost.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Bytes that a socket's buffers should hold, each way.
pub const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Binds one address, and that alone.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    open(address, true)
}

/// Binds any free port for dialling: IPv6 and IPv4 together, or IPv4 alone where there is no IPv6.
pub(super) fn bind_any() -> Result<UdpSocket, (SocketAddr, io::Error)> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let old = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    open(both, false)
        .or_else(|_| open(old, true))
        .map_err(|error| (old, error))
}

fn open(address: SocketAddr, only_v6: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.bind(&address.into())?;
    enlarge(&socket, address);
    Ok(socket.into())
}

/// The forced calls need privileges; the others are cut silently to the system's maximum, so the result is read back.
fn enlarge(socket: &Socket, address: SocketAddr) {
    use rustix::net::sockopt;
    let receive = sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_BYTES)
        .map_err(io::Error::from)
        .or_else(|_| socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES))
        .and_then(|()| socket.recv_buffer_size());
    let send = sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_BYTES)
        .map_err(io::Error::from)
        .or_else(|_| socket.set_send_buffer_size(SOCKET_BUFFER_BYTES))
        .and_then(|()| socket.send_buffer_size());
    let (receive_bytes, send_bytes) = (receive.unwrap_or(0), send.unwrap_or(0));
    // A small fleet lives well with less, so this is no error; Linux reports twice the size it was asked for.
    if receive_bytes < SOCKET_BUFFER_BYTES || send_bytes < SOCKET_BUFFER_BYTES {
        tracing::warn!(
            %address,
            receive_bytes,
            send_bytes,
            wanted_bytes = SOCKET_BUFFER_BYTES,
            "UDP buffers are small: set net.core.rmem_max and net.core.wmem_max before many agents connect"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{bind, bind_any};

    #[test]
    fn an_address_is_bound_once() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        assert!(bind(first.local_addr().unwrap()).is_err());
        assert!(bind_any().is_ok());
    }
}
