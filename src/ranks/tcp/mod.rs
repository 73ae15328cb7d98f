//! Ranks over sockets: the first rank is the hub. It adds up what the others send, in their order, and sends the sum back.
//!
//! A message is its length in bytes (8, little-endian) and the bytes. A rank that ends closes its socket, which the others notice
//! in their next sum: so one that fails stops all.

use super::{Launch, ProcessGroup, Watch};
use crate::{Error, Result};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// How long ranks wait for each other at the start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two tries to meet.
const PAUSE: Duration = Duration::from_millis(50);

/// How long one waits for what the other says at the start.
const WORD: Duration = Duration::from_secs(5);

/// After so long without a sign of life from the other's machine a connection that waits for it is given up. (One that has sent
/// something is given up when the system is tired of sending it again, after some 15 minutes.)
const SILENCE: Duration = Duration::from_secs(120);

/// What a rank says first, with its number and how many there are, and what the first answers: no other program, and no other run,
/// is taken for one of ours.
const GREETING: &[u8; 8] = b"limbeck2";

/// Sockets to the others: of the first rank, to each; of another, to the first.
pub struct Tcp {
    rank: usize,
    size: usize,
    sockets: Vec<TcpStream>,
    /// Held by whoever talks to the others.
    turn: Arc<Mutex<()>>,
}

impl Tcp {
    /// Meets the others.
    ///
    /// # Errors
    /// [`Error::Ranks`] naming the address, and who is missing.
    pub fn join(launch: &Launch) -> Result<Tcp> {
        let Launch { rank, size, address, .. } = launch;
        let sockets = match rank {
            0 => accept_all(address, *size)?,
            _ => vec![call(address, *rank, *size)?],
        };
        Ok(Tcp { rank: *rank, size: *size, sockets, turn: Arc::default() })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().expect("nothing panics while it talks to the others")
    }

    /// The sum over ranks of numbers of `N` bytes, by `add`.
    fn reduce<const N: usize>(
        &self,
        values: &mut [u8],
        add: impl Fn([u8; N], [u8; N]) -> [u8; N],
    ) -> Result<()> {
        let (_turn, sockets) = (self.turn(), &self.sockets);
        if self.rank > 0 {
            let socket = &sockets[0];
            send(socket, values).map_err(|error| lost(0, &error))?;
            let sum = receive(socket, Some(values.len())).map_err(|error| lost(0, &error))?;
            values.copy_from_slice(&sum);
            return Ok(());
        }
        for (i, socket) in sockets.iter().enumerate() {
            let theirs = receive(socket, Some(values.len())).map_err(|error| lost(i + 1, &error))?;
            let pairs = values.as_chunks_mut::<N>().0.iter_mut().zip(theirs.as_chunks::<N>().0);
            pairs.for_each(|(sum, value)| *sum = add(*sum, *value));
        }
        for (i, socket) in sockets.iter().enumerate() {
            send(socket, values).map_err(|error| lost(i + 1, &error))?;
        }
        Ok(())
    }
}

/// Numbers as bytes, little-endian.
fn bytes_of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut all = vec![0; N * values.len()];
    all.as_chunks_mut::<N>().0.iter_mut().zip(values).for_each(|(to, value)| *to = bytes(*value));
    all
}

impl ProcessGroup for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        let mut bytes = bytes_of(values, f32::to_le_bytes);
        self.reduce(&mut bytes, |a, b| (f32::from_le_bytes(a) + f32::from_le_bytes(b)).to_le_bytes())?;
        let sums = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum);
        Ok(())
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
        let mut bytes = bytes_of(values, f64::to_le_bytes);
        self.reduce(&mut bytes, |a, b| (f64::from_le_bytes(a) + f64::from_le_bytes(b)).to_le_bytes())?;
        let sums = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum);
        Ok(())
    }

    fn abort(&self) {
        for socket in &self.sockets {
            // One that is closed already says so too.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let (_turn, sockets) = (self.turn(), &self.sockets);
        if self.rank > 0 {
            *bytes = receive(&sockets[0], None).map_err(|error| lost(0, &error))?;
            return Ok(());
        }
        for (i, socket) in sockets.iter().enumerate() {
            send(socket, bytes).map_err(|error| lost(i + 1, &error))?;
        }
        Ok(())
    }

    fn watch(&self) -> Result<Option<Watch>> {
        let first = if self.rank == 0 { 1 } else { 0 };
        let sockets = self.sockets.iter().map(TcpStream::try_clone).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.map_err(|error| lost(first, &error))?;
        let turn = Arc::clone(&self.turn);
        let look = move || {
            // Whoever talks to the others now will notice by itself.
            let _turn = match turn.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(()),
                free => free,
            };
            let mut ranks = sockets.iter().zip(first..);
            ranks.try_for_each(|(socket, rank)| is_open(socket).map_err(|error| lost(rank, &error)))
        };
        Ok(Some(Box::new(look)))
    }
}

/// Whether the other end is there, without waiting for a word of it. Nobody else may use the connection meanwhile: not to wait is
/// a property of all handles of it.
fn is_open(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let next = socket.peek(&mut [0]);
    socket.set_nonblocking(false)?;
    match next {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// Waits for all other ranks, and sorts them by their numbers.
fn accept_all(address: &str, size: usize) -> Result<Vec<TcpStream>> {
    let port = address.rsplit_once(':').map_or(address, |(_, port)| port);
    let refused = |error: io::Error| {
        let mend = "choose another with MASTER_PORT, the same for all";
        Error::Ranks { problem: format!("cannot listen on port {port}: {error}"), mend: mend.into() }
    };
    let number: u16 = port.parse().map_err(|_| refused(io::ErrorKind::InvalidInput.into()))?;
    let listeners = listen(number).map_err(refused)?;
    let (start, mut sockets) = (Instant::now(), Vec::new());
    sockets.resize_with(size - 1, || None);
    while sockets.iter().any(Option::is_none) {
        match listeners.iter().find_map(|listener| listener.accept().ok()) {
            Some((socket, _)) => {
                if let Some((rank, socket)) = read_handshake(socket, size) {
                    sockets[rank - 1] = Some(socket);
                }
            }
            None if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            None => {
                let missing = || (1..size).filter(|rank| sockets[rank - 1].is_none());
                let mut named: Vec<String> = missing().take(8).map(|rank| rank.to_string()).collect();
                named.extend((missing().count() > named.len()).then(|| "…".to_owned()));
                let problem = format!("of {size} ranks, {} did not come to port {port}", named.join(", "));
                let mend = "start all of them, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE";
                return Err(Error::Ranks { problem, mend: mend.into() });
            }
        }
    }
    Ok(sockets.into_iter().flatten().collect())
}

/// Listens at all of this machine's addresses, without waiting. Where it has those of both kinds, the first listener may have both
/// already, and then there is no second.
fn listen(port: u16) -> io::Result<Vec<TcpListener>> {
    let any = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    let (mut listeners, mut refused) = (Vec::new(), None);
    for address in any {
        match TcpListener::bind((address, port)) {
            Ok(listener) => listeners.push(listener),
            Err(error) => refused = Some(error),
        }
    }
    listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
    match refused {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

/// Enables TCP keep-alive: a machine that loses its power or its cable closes no connection. A process that computes for long is
/// no problem, for its system answers. That it cannot be enabled must not stop the ranks.
#[cfg(target_os = "linux")]
fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, SILENCE / 2)?;
    sockopt::set_tcp_keepintvl(socket, SILENCE / 12)?;
    Ok(sockopt::set_tcp_keepcnt(socket, 6)?)
}

/// Elsewhere a machine that is gone without a word is waited for.
#[cfg(not(target_os = "linux"))]
fn keep_alive(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// The number that somebody who calls says, if it is one of us; it is answered.
fn read_handshake(mut socket: TcpStream, size: usize) -> Option<(usize, TcpStream)> {
    socket.set_nonblocking(false).ok()?;
    socket.set_nodelay(true).ok()?;
    let _ = keep_alive(&socket);
    socket.set_read_timeout(Some(WORD)).ok()?;
    let mut said = [0; 24];
    socket.read_exact(&mut said).ok()?;
    let rank = (1..size).find(|&rank| said == handshake(rank, size))?;
    socket.write_all(GREETING).ok()?;
    socket.set_read_timeout(None).ok()?;
    Some((rank, socket))
}

/// What a rank says when it calls.
fn handshake(rank: usize, size: usize) -> [u8; 24] {
    let mut said = [0; 24];
    said[..8].copy_from_slice(GREETING);
    said[8..16].copy_from_slice(&(rank as u64).to_le_bytes());
    said[16..].copy_from_slice(&(size as u64).to_le_bytes());
    said
}

/// Calls the first rank until it answers.
fn call(address: &str, rank: usize, size: usize) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        match answered(address, rank, size) {
            Ok(socket) => return Ok(socket),
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(error) => {
                let problem = format!("rank {rank} does not reach the first rank at {address}: {error}");
                let mend = "say where it is with MASTER_ADDR and MASTER_PORT, and how many there are with WORLD_SIZE, the same for all";
                return Err(Error::Ranks { problem, mend: mend.into() });
            }
        }
    }
}

/// A socket to the first rank, which has answered: a name may have several addresses, at one of which it listens.
fn answered(address: &str, rank: usize, size: usize) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for found in address.to_socket_addrs()? {
        let reached = TcpStream::connect_timeout(&found, WORD).and_then(|mut socket| {
            socket.set_nodelay(true)?;
            let _ = keep_alive(&socket);
            socket.write_all(&handshake(rank, size))?;
            let mut answer = [0; 8];
            socket.set_read_timeout(Some(6 * WORD))?;
            socket.read_exact(&mut answer)?;
            socket.set_read_timeout(None)?;
            let other = || io::Error::other("what listens there is not the first rank of this run");
            if answer == *GREETING { Ok(socket) } else { Err(other()) }
        });
        match reached {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn send(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(&(bytes.len() as u64).to_le_bytes())?;
    socket.write_all(bytes)
}

/// A message, of `length` bytes if that is known.
fn receive(mut socket: &TcpStream, length: Option<usize>) -> io::Result<Vec<u8>> {
    let mut said = [0; 8];
    socket.read_exact(&mut said)?;
    let said = u64::from_le_bytes(said) as usize;
    if length.is_some_and(|length| length != said) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it computes something else: another recipe, or another version",
        ));
    }
    // As much memory as there are bytes, whatever was said.
    let mut bytes = Vec::with_capacity(length.unwrap_or_default());
    socket.take(said as u64).read_to_end(&mut bytes)?;
    if bytes.len() == said { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn lost(rank: usize, error: &io::Error) -> Error {
    let problem = match error.kind() {
        io::ErrorKind::InvalidData => format!("rank {rank}: {error}"),
        io::ErrorKind::UnexpectedEof => format!("rank {rank} has stopped: it closed its connection"),
        _ => format!("rank {rank} has stopped ({error})"),
    };
    Error::Ranks {
        problem,
        mend: "see what it says, mend it there, and start all again with --resume".into(),
    }
}

#[cfg(test)]
pub(super) mod tests;
