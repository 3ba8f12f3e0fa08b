//! What this process holds, as the kernel tells it.

/// Its memory, in bytes; `None` where the kernel doesn't tell.
pub fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// How many files it holds open.
pub fn open_files() -> Option<u64> {
    // The folder itself is open while it is read.
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u64::try_from(open).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_files_are_told() {
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
        let before = open_files().expect("a number");
        let held: Vec<_> = (0..100).map(|_| std::fs::File::open("/dev/null").expect("a file")).collect();
        // Other tests open and close files at the same time.
        assert!(open_files().is_some_and(|now| now > before + 50));
        drop(held);
    }
}
