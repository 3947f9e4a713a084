//! What files say, as they are now.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

/// What a file is known by: its number, its length in octets, and when it, its owner or its mode changed last.
pub(super) type Stamp = (u64, u64, i64, i64);

pub(super) fn stamp(path: &Path) -> io::Result<Stamp> {
    let file = std::fs::metadata(path)?;
    Ok((file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
}

/// Octets that such a file has at most.
const LARGEST: u64 = 4 << 20;

/// The octets of a file, which a pipe or a device is not: it may have no end, and no beginning.
///
/// # Errors
/// Of the file; where it is something else, or larger than 4 MiB.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let other = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return other("it is no regular file");
    }
    let mut octets = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > LARGEST {
        return other("it is larger than 4 MiB");
    }
    Ok(octets)
}

/// How long files are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who may wait at once.
const WAITING: usize = 256;

/// A value that files say, which are looked at by a thread of its own: a disk that does not answer holds up who asks for this value, for
/// [`PATIENCE`], and nothing else.
pub(super) struct Fresh<T> {
    questions: SyncSender<oneshot::Sender<T>>,
}

impl<T: Send + 'static> Fresh<T> {
    /// Looks for the first time at once.
    ///
    /// # Errors
    /// Where there is no thread for it.
    pub(super) fn start(
        name: &str,
        mut look: impl FnMut() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (questions, asked) = sync_channel::<oneshot::Sender<T>>(WAITING);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            drop(look());
            for question in asked {
                // Who has waited too long has gone.
                if !question.is_closed() {
                    let _ = question.send(look());
                }
            }
        })?;
        Ok(Self { questions })
    }

    /// What the files say now; `None` where they do not answer.
    pub(super) async fn get(&self) -> Option<T> {
        let (question, answer) = oneshot::channel();
        self.questions.try_send(question).ok()?;
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn files_that_do_not_answer_hold_up_who_asks_for_them_alone() {
        let (answers, files) = channel::<u8>();
        let fresh = Fresh::start("test", move || files.recv().unwrap_or(0)).unwrap();
        let (one, two) = tokio::join!(fresh.get(), fresh.get());
        assert_eq!((one, two), (None, None));
        // The first look, and one for who asks now: those before have gone.
        answers.send(1).unwrap();
        answers.send(2).unwrap();
        assert_eq!(fresh.get().await, Some(2));
    }

    #[test]
    fn what_is_no_regular_file_is_read_by_nobody() {
        let folder = std::env::temp_dir().join(format!("weft-fresh-{}", crate::token::random(6)));
        std::fs::create_dir(&folder).unwrap();
        let pipe = folder.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), folder.as_path()] {
            let error = read(path).unwrap_err().to_string();
            assert!(error.contains("regular"), "{}: {error}", path.display());
        }
        let large = folder.join("large");
        File::create(&large).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(read(&large).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
