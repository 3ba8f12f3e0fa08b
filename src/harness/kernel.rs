//! The two questions to the kernel that no crate of ours asks: another process's memory, and a TCP connection's state.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads `length` bytes at `address` of another process's memory.
///
/// # Errors
/// If the process is gone, is not ours to read, or has less memory there.
#[allow(unsafe_code)]
pub fn read_memory(pid: i32, address: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; length];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let Ok(address) = usize::try_from(address) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: length };
    // SAFETY: `local` describes `bytes`, which is writable for `length` bytes and outlives the call; the remote
    // address is only looked up in the other process, by the kernel, which answers EFAULT if it is not mapped.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(read) {
        Ok(read) if read == length => Ok(bytes),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Of a TCP connection: its state (`TCP_ESTABLISHED` is 1), and how long ago, in ms, it last sent and got data.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    pub state: u8,
    pub last_sent: u32,
    pub last_received: u32,
    /// It has sent data and never got any.
    pub unanswered: bool,
}

/// The state of a TCP socket.
///
/// # Errors
/// If it is no TCP socket.
#[allow(unsafe_code)]
pub fn tcp(socket: BorrowedFd<'_>) -> io::Result<Tcp> {
    // SAFETY: `tcp_info` is plain integers, for which zeroes are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::tcp_info>();
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: `info` is writable for `length` bytes, and the kernel writes no more than that.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Tcp {
        state: info.tcpi_state,
        last_sent: info.tcpi_last_data_sent,
        last_received: info.tcpi_last_data_recv,
        unanswered: info.tcpi_data_segs_out > 0 && info.tcpi_bytes_received == 0,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn memory_is_read() {
        let text = *b"some bytes of ours";
        let pid = i32::try_from(std::process::id()).unwrap();
        let address = text.as_ptr() as u64;
        assert_eq!(read_memory(pid, address, text.len()).unwrap(), text);
        assert!(read_memory(pid, 8, 4).is_err());
    }

    #[test]
    fn a_connection_tells_its_state() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(tcp(listener.as_fd()).unwrap().state, 10);
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        assert!(!tcp(near.as_fd()).unwrap().unanswered);
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        let asked = tcp(near.as_fd()).unwrap();
        assert_eq!((asked.state, asked.unanswered), (1, true));
        far.write_all(b"y").unwrap();
        near.read_exact(&mut [0]).unwrap();
        assert!(!tcp(near.as_fd()).unwrap().unanswered);
    }
}
