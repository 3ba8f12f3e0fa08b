//! The first message of a TLS connection: which server it is meant for.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(10);
/// No client's first message is longer, in bytes.
const LONGEST: usize = 32 << 10;

/// What a client has begun with.
#[derive(Debug)]
pub struct Hello {
    /// All that was read of it, to be passed on.
    pub bytes: Vec<u8>,
    /// The server's name in it, in lower case.
    pub server: Option<String>,
}

/// Reads a client's first message. Errors: it is no TLS, ends early, or comes too slowly.
pub async fn read(client: &mut (impl AsyncRead + Unpin)) -> Result<Hello, String> {
    match tokio::time::timeout(PATIENCE, read_all(client)).await {
        Ok(read) => read,
        Err(_elapsed) => Err("the TLS connection did not begin in time".to_owned()),
    }
}

async fn read_all(client: &mut (impl AsyncRead + Unpin)) -> Result<Hello, String> {
    let mut acceptor = Acceptor::default();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = client.read(&mut buffer).await.map_err(|error| error.to_string())?;
        let new = buffer.get(..length).unwrap_or_default();
        if new.is_empty() {
            return Err("it ended before the TLS connection had begun".to_owned());
        }
        bytes.extend_from_slice(new);
        if bytes.len() > LONGEST {
            return Err("it is no TLS connection".to_owned());
        }
        let mut left = new;
        while !left.is_empty() {
            let took = acceptor.read_tls(&mut left as &mut dyn io::Read);
            if took.is_err() {
                return Err("it is no TLS connection".to_owned());
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let server = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                    return Ok(Hello { bytes, server });
                }
                Err((_error, _alert)) => return Err("it is no TLS connection".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello as TLS 1.3 clients send it.
    fn hello(server: Option<&str>) -> Vec<u8> {
        let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
        let mut extensions = Vec::new();
        if let Some(server) = server {
            let name = [&[0][..], &sized(server.as_bytes())].concat();
            extensions.extend(extension(0, &sized(&name)));
        }
        extensions.extend(extension(43, &[2, 3, 4]));
        extensions.extend(extension(13, &sized(&[4, 3, 8, 4])));
        extensions.extend(extension(10, &sized(&[0, 29])));
        extensions.extend(extension(51, &sized(&[&[0, 29][..], &sized(&[7; 32])].concat())));
        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.push(0);
        body.extend(sized(&[0x13, 1]));
        body.extend([1, 0]);
        body.extend(sized(&extensions));
        let length = (body.len() as u32).to_be_bytes();
        let message = [&[1][..], &length[1..], &body].concat();
        [&[22, 3, 1][..], &sized(&message)].concat()
    }

    async fn read_bytes(mut bytes: &[u8]) -> Result<Hello, String> {
        read(&mut bytes).await
    }

    #[tokio::test]
    async fn the_name_is_found_and_nothing_is_lost() {
        let mut sent = hello(Some("API.example.com"));
        sent.extend(b"what comes after");
        let read = read_bytes(&sent).await.expect("a hello");
        assert_eq!((read.server.as_deref(), read.bytes), (Some("api.example.com"), sent));
        assert_eq!(read_bytes(&hello(None)).await.expect("a hello").server, None);
    }

    #[tokio::test]
    async fn what_comes_in_pieces_is_put_together() {
        let sent = hello(Some("api.example.com"));
        let (mut client, mut server) = tokio::io::duplex(3);
        let writer = sent.clone();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut client, &writer).await });
        let read = read(&mut server).await.expect("a hello");
        assert_eq!((read.server.as_deref(), read.bytes), (Some("api.example.com"), sent));
    }

    #[tokio::test]
    async fn what_is_no_tls_is_refused() {
        let ends = "it ended before the TLS connection had begun";
        for (bytes, says) in [
            (b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n".to_vec(), "it is no TLS connection"),
            (Vec::new(), ends),
            (hello(Some("api.example.com"))[..40].to_vec(), ends),
            (vec![0; 64 << 10], "it is no TLS connection"),
        ] {
            assert_eq!(read_bytes(&bytes).await.expect_err("refused"), says);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(flips in proptest::collection::vec((0usize..200, any::<u8>()), 0..8), tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = hello(Some("api.example.com"));
            for (at, to) in flips {
                if let Some(byte) = bytes.get_mut(at) { *byte = to; }
            }
            bytes.extend(tail);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let _ = runtime.block_on(read_bytes(&bytes));
        }
    }
}
