//! Encryption of what is kept secret: keys, sealing, unsealing. Nothing here knows what is sealed or where it is kept.
//!
//! XChaCha20-Poly1305 with a random nonce for each value, bound to the place where the value belongs. The master key is
//! 32 bytes in a file for its owner alone, made when it is first needed, or is given from outside.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chacha20poly1305::aead::rand_core::RngCore;
use chacha20poly1305::aead::{Aead, KeyInit, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::wire::Secret;

/// The length of a key, in bytes.
const KEY: usize = 32;
/// The length of a nonce, in bytes.
const NONCE: usize = 24;

/// Why something can't be sealed or unsealed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key that was given from outside is none.
    #[error("SUPERSERVE_SECRET_KEY is not a key: it takes 32 bytes, in hex or in base64")]
    BadKey,
    /// The file of the key may be read by others, or is of a wrong length.
    #[error("the key of the secrets, {}, {why}", path.display())]
    BadFile { path: PathBuf, why: &'static str },
    #[error("cannot {doing} the key of the secrets, {}: {source}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    /// Sealed with a key that is not here.
    #[error("it was encrypted with another key ({sealed}), and this server has {known}")]
    OtherKey { sealed: String, known: String },
    /// The key is the right one, but what is stored was changed, or belongs elsewhere.
    #[error("what is stored of it is damaged")]
    Damaged,
}

impl VaultError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::BadKey => {
                "Make one with: openssl rand -hex 32. Several may stand there with commas between: the first \
                 encrypts, all decrypt."
                    .into()
            }
            Self::BadFile { path, .. } => format!(
                "Make it yours alone with chmod 600 {0}, or put a backup of it in its place: what it has encrypted \
                 can't be read without it.",
                path.display()
            ),
            Self::File { .. } => "Check that the file is yours, and that the disk is not full.".into(),
            Self::OtherKey { .. } => {
                "Bring that key back, as secret.key in superserve's home or in SUPERSERVE_SECRET_KEY, or set the \
                 secrets anew."
                    .into()
            }
            Self::Damaged => "Set it anew with superserve secrets set.".into(),
        }
    }
}

/// Something sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Which key it was sealed with.
    pub key_id: String,
    pub nonce: Vec<u8>,
    pub bytes: Vec<u8>,
}

/// Where a sealed value belongs: it can't be unsealed at any other place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub owner: &'a str,
    pub name: &'a str,
    pub version: u64,
}

impl Place<'_> {
    /// With lengths, so that no two places read the same.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.owner, self.name] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes.extend(self.version.to_le_bytes());
        bytes
    }
}

/// Seals and unseals. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    file: PathBuf,
    /// From outside; the first one seals.
    given: Arc<[MasterKey]>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.given.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("Vault").field("file", &self.file).field("given", &ids).finish()
    }
}

struct MasterKey {
    /// The beginning of its hash: says which key it is, and nothing about it.
    id: String,
    bytes: Zeroizing<[u8; KEY]>,
}

impl MasterKey {
    fn new(bytes: Zeroizing<[u8; KEY]>) -> Self {
        let hash = Sha256::new().chain_update(b"superserve key id").chain_update(bytes.as_slice()).finalize();
        Self { id: hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect(), bytes }
    }

    /// A key in hex or base64.
    fn read(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(from_hex(text).or_else(|| from_base64(text))?);
        let mut key = Zeroizing::new([0; KEY]);
        if bytes.len() != KEY {
            return None;
        }
        key.copy_from_slice(&bytes);
        Some(Self::new(key))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.bytes.as_slice().into())
    }
}

impl Vault {
    /// A vault with the keys that were `given`, with commas between, or else with the one in `home`, which is looked at when it is
    /// first needed.
    ///
    /// Errors: what was given is no key.
    pub fn new(home: &Path, given: Option<&Secret>) -> Result<Self, VaultError> {
        let texts = given.map(Secret::reveal).unwrap_or_default().split(',').map(str::trim);
        let keys = texts
            .filter(|text| !text.is_empty())
            .map(|text| MasterKey::read(text).ok_or(VaultError::BadKey))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() && given.is_some() {
            return Err(VaultError::BadKey);
        }
        Ok(Self { file: home.join("secret.key"), given: keys.into() })
    }

    /// Encrypts a value for its place. Makes the key if there is none. Blocks.
    ///
    /// Errors: the key's file can't be used, or made.
    pub fn seal(&self, place: Place<'_>, value: &Secret) -> Result<Sealed, VaultError> {
        let own;
        let key = match self.given.first() {
            Some(key) => key,
            None => {
                own = match self.load()? {
                    Some(key) => key,
                    None => self.make()?,
                };
                &own
            }
        };
        let mut nonce = [0; NONCE];
        OsRng.fill_bytes(&mut nonce);
        let aad = place.bytes();
        let payload = Payload { msg: value.reveal().as_bytes(), aad: &aad };
        // Fails for values of hundreds of gigabytes alone.
        let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| VaultError::Damaged)?;
        Ok(Sealed { key_id: key.id.clone(), nonce: nonce.to_vec(), bytes: sealed })
    }

    /// Decrypts what was sealed for this place. Blocks.
    ///
    /// Errors: it was sealed with another key, or is damaged; the key's file can't be used.
    pub fn unseal(&self, place: Place<'_>, sealed: &Sealed) -> Result<Secret, VaultError> {
        if let Some(key) = self.given.iter().find(|key| key.id == sealed.key_id) {
            return open(key, place, sealed);
        }
        // Also where keys were given: so a key moves from the file into the environment.
        let own = self.load()?;
        match &own {
            Some(key) if key.id == sealed.key_id => open(key, place, sealed),
            _ => {
                let known: Vec<&str> =
                    self.given.iter().chain(own.as_ref()).map(|key| key.id.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(VaultError::OtherKey { sealed: sealed.key_id.chars().take(32).collect(), known })
            }
        }
    }

    fn failed(&self, doing: &'static str) -> impl Fn(io::Error) -> VaultError + '_ {
        move |source| VaultError::File { doing, path: self.file.clone(), source }
    }

    /// The key in the file, if there is one.
    fn load(&self) -> Result<Option<MasterKey>, VaultError> {
        let bad = |why| VaultError::BadFile { path: self.file.clone(), why };
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(bad("is a link")),
            Err(error) => return Err(self.failed("read")(error)),
        };
        let meta = file.metadata().map_err(self.failed("read"))?;
        if !meta.is_file() {
            return Err(bad("is no file"));
        }
        if meta.mode() & 0o077 != 0 {
            return Err(bad("can be read by others"));
        }
        if meta.len() != KEY as u64 {
            return Err(bad("is not 32 bytes long"));
        }
        let mut key = Zeroizing::new([0; KEY]);
        file.read_exact(key.as_mut_slice()).map_err(self.failed("read"))?;
        Ok(Some(MasterKey::new(key)))
    }

    /// Makes a key and its file, whole or not at all. If another one was made meanwhile, that.
    fn make(&self) -> Result<MasterKey, VaultError> {
        let mut bytes = Zeroizing::new([0; KEY]);
        OsRng.fill_bytes(bytes.as_mut_slice());
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new()
            .prefix(".secret.key.")
            .tempfile_in(folder)
            .map_err(self.failed("make"))?;
        file.write_all(bytes.as_slice())
            .and_then(|()| file.as_file().sync_all())
            .map_err(self.failed("make"))?;
        match file.persist_noclobber(&self.file) {
            Ok(_) => {
                // A value that outlives its key at a power cut would be lost.
                let folder = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
                folder.map_err(self.failed("make"))?;
                Ok(MasterKey::new(bytes))
            }
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                let gone = || VaultError::BadFile { path: self.file.clone(), why: "comes and goes" };
                self.load()?.ok_or_else(gone)
            }
            Err(error) => Err(self.failed("make")(error.error)),
        }
    }
}

fn open(key: &MasterKey, place: Place<'_>, sealed: &Sealed) -> Result<Secret, VaultError> {
    let nonce = <[u8; NONCE]>::try_from(sealed.nonce.as_slice()).map_err(|_| VaultError::Damaged)?;
    let aad = place.bytes();
    let payload = Payload { msg: &sealed.bytes, aad: &aad };
    let bytes = key.cipher().decrypt(&XNonce::from(nonce), payload).map_err(|_| VaultError::Damaged)?;
    String::from_utf8(bytes).map(Secret::new).map_err(|error| {
        error.into_bytes().zeroize();
        VaultError::Damaged
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != KEY * 2 || !text.is_ascii() {
        return None;
    }
    (0..KEY).map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()).collect()
}

/// Standard and URL-safe letters, with or without padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(KEY + 1);
    let (mut bits, mut count) = (0u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    const PLACE: Place<'_> = Place { owner: "agt_1", name: "KEY", version: 1 };

    fn given(text: &str) -> Result<Vault, VaultError> {
        Vault::new(Path::new("/nonexistent"), Some(&Secret::new(text.to_owned())))
    }

    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(KEY)
    }

    #[test]
    fn a_value_comes_back_at_its_place_alone() {
        let home = tempfile::tempdir().expect("a folder");
        let vault = Vault::new(home.path(), None).expect("a vault");
        let sealed = vault.seal(PLACE, &Secret::new("hunter2".into())).expect("sealed");
        assert!(!sealed.bytes.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(vault.unseal(PLACE, &sealed).expect("a value").reveal(), "hunter2");
        for place in [
            Place { owner: "agt_2", ..PLACE },
            Place { name: "KEZ", ..PLACE },
            Place { version: 2, ..PLACE },
            Place { owner: "agt_1K", name: "EY", version: 1 },
        ] {
            assert!(matches!(vault.unseal(place, &sealed), Err(VaultError::Damaged)), "{place:?}");
        }
        let again = vault.seal(PLACE, &Secret::new("hunter2".into())).expect("sealed");
        assert_ne!((&again.nonce, &again.bytes), (&sealed.nonce, &sealed.bytes), "a nonce is used once");
        assert_eq!(again.key_id, sealed.key_id, "the key is made once");
        let mode = home.path().join("secret.key").metadata().expect("a key").mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(home.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn damage_is_seen() {
        let vault = given(&hex(7)).expect("a vault");
        let sealed = vault.seal(PLACE, &Secret::new("hunter2".into())).expect("sealed");
        for at in 0..sealed.bytes.len() {
            let mut other = sealed.clone();
            other.bytes[at] ^= 1;
            assert!(matches!(vault.unseal(PLACE, &other), Err(VaultError::Damaged)));
        }
        for nonce in [vec![], vec![0; NONCE], vec![0; 99]] {
            let other = Sealed { nonce, ..sealed.clone() };
            assert!(matches!(vault.unseal(PLACE, &other), Err(VaultError::Damaged)));
        }
    }

    #[test]
    fn another_key_is_told_as_such_and_keys_can_be_changed() {
        let (old, new) = (given(&hex(1)).expect("a vault"), given(&hex(2)).expect("a vault"));
        let sealed = old.seal(PLACE, &Secret::new("hunter2".into())).expect("sealed");
        let error = new.unseal(PLACE, &sealed).expect_err("another key");
        assert!(error.to_string().contains(&sealed.key_id), "{error}");
        let both = given(&format!("{}, {}", hex(2), hex(1))).expect("a vault");
        assert_eq!(both.unseal(PLACE, &sealed).expect("a value").reveal(), "hunter2");
        let resealed = both.seal(PLACE, &Secret::new("hunter2".into())).expect("sealed");
        assert_eq!(new.unseal(PLACE, &resealed).expect("a value").reveal(), "hunter2");
    }

    #[test]
    fn a_key_moves_from_its_file_into_the_environment() {
        let home = tempfile::tempdir().expect("a folder");
        let file = Vault::new(home.path(), None).expect("a vault");
        let sealed = file.seal(PLACE, &Secret::new("hunter2".into())).expect("sealed");
        let both = Vault::new(home.path(), Some(&Secret::new(hex(3)))).expect("a vault");
        assert_eq!(both.unseal(PLACE, &sealed).expect("a value").reveal(), "hunter2");
    }

    #[test]
    fn a_key_that_others_can_read_or_of_a_wrong_length_is_refused() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("secret.key");
        let vault = Vault::new(home.path(), None).expect("a vault");
        for (length, mode) in [(32, 0o640), (32, 0o604), (31, 0o600), (33, 0o600), (0, 0o600)] {
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, vec![1; length]).expect("a key");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
            let error = vault.seal(PLACE, &Secret::default()).expect_err("refused");
            assert!(matches!(error, VaultError::BadFile { .. }), "{length} {mode:o}: {error}");
            assert!(error.hint().contains("chmod 600"), "{}", error.hint());
        }
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
        assert!(matches!(vault.seal(PLACE, &Secret::default()), Err(VaultError::BadFile { .. })));
    }

    #[test]
    fn keys_are_read_in_hex_and_base64() {
        let sealed =
            given(&hex(0xfb)).expect("a vault").seal(PLACE, &Secret::new("v".into())).expect("sealed");
        let plain = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=";
        for text in [plain, plain.trim_end_matches('='), &plain.replace('+', "-").replace('/', "_")] {
            assert_eq!(
                given(text).expect("a vault").unseal(PLACE, &sealed).expect("v").reveal(),
                "v",
                "{text}"
            );
        }
        for text in ["", ",", "abc", &hex(1)[1..], &format!("{}0", hex(1)), "~~~~", "ä", &"A".repeat(99)] {
            let error = given(text).expect_err("no key");
            assert!(text.len() < 3 || !error.to_string().contains(text), "{error}");
        }
        assert!(!format!("{:?}", given(&hex(1)).expect("a vault")).contains(&hex(1)));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>(), owner in any::<String>(), name in any::<String>(), version in any::<u64>()) {
            let vault = given(&hex(9)).expect("a vault");
            let place = Place { owner: &owner, name: &name, version };
            let sealed = vault.seal(place, &Secret::new(text.clone())).expect("sealed");
            let unsealed = vault.unseal(place, &sealed).expect("a value");
            prop_assert_eq!(unsealed.reveal(), text);
        }
    }
}
