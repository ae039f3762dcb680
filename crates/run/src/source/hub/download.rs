//! Downloads one file of the hub into the cache: it resumes a partial download, and checks the file
//! before the file gets its name.

use super::{
    Kind,
    cache::Repository,
    client::{Answer, Client, Fault, Located},
    listing::Announced,
    partial::Partial,
    replies::{bare_etag, blob_name, is_sha256},
};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tightrope_data::Progress;
use tightrope_formats::files::folder_of;
use ureq::http::{HeaderMap, StatusCode, header};

const ATTEMPTS: u32 = 4;
/// Largest size that is accepted for a file of unknown size.
const UNSIZED: u64 = 64 << 20;

/// Reason why a file is missing.
pub(super) enum Problem {
    /// The hub failed.
    Fault(Fault),
    /// The disk failed.
    Io(PathBuf, io::Error),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Problem::Fault(fault)
    }
}

/// Adds the path to an error of the disk.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let path = path.to_owned();
    move |error| Problem::Io(path, error)
}

/// Downloads files of one commit.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub repository: &'a Repository,
    pub kind: Kind,
    pub id: &'a str,
    pub commit: &'a str,
    pub progress: &'a dyn Progress,
}

/// Facts about a file that are known before its contents.
struct Facts {
    blob: String,
    size: Option<u64>,
    sha256: Option<String>,
}

impl Download<'_> {
    /// Downloads a file into the folder of the commit, if it is missing.
    pub(super) fn file(
        &self,
        name: &str,
        announced: &Announced,
        place: &str,
    ) -> Result<(), Problem> {
        if self.repository.snapshot(self.commit).join(name).exists() {
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            match self.attempt(name, announced, place) {
                Err(Problem::Fault(Fault::Passing(_))) if attempt < ATTEMPTS => {
                    self.client.pause(Duration::from_millis(250 << attempt))?;
                    attempt += 1;
                }
                Err(Problem::Fault(fault)) => return Err(fault.about(name).into()),
                result => return result,
            }
        }
    }

    fn attempt(&self, name: &str, announced: &Announced, place: &str) -> Result<(), Problem> {
        let id = self.kind.root().into_iter().chain(self.id.split('/'));
        let parts = id.chain(["resolve", self.commit]).chain(name.split('/'));
        let located = self.client.locate(self.client.address(parts)?)?;
        let facts = self.facts(name, announced, &located)?;
        let blob = self.repository.blob(&facts.blob);
        let _lock = self.lock(&self.repository.lock(&facts.blob))?;
        let there = fs::metadata(&blob).map(|data| data.len());
        if !there.is_ok_and(|bytes| facts.size.is_none_or(|size| size == bytes)) {
            fs::create_dir_all(folder_of(&blob)).map_err(at(&blob))?;
            let mut partial = Partial::open(&blob)?;
            self.progress.start(&format!("{name}{place}"), facts.size);
            let received = self.receive(&mut partial, &facts, located);
            self.progress.finish();
            received?;
            partial.finish(&blob)?;
        }
        let linked = self.repository.link(&facts.blob, self.commit, name);
        linked.map_err(at(&blob))
    }

    fn facts(&self, name: &str, said: &Announced, located: &Located) -> Result<Facts, Fault> {
        let text = |key: &str| {
            located
                .headers
                .get(key)
                .and_then(|value| value.to_str().ok())
        };
        let wrong = |reason: &str| Err(Fault::Wrong(reason.to_owned()));
        let commits = located.headers.get_all("x-repo-commit");
        if commits.iter().any(|commit| commit != self.commit) {
            return wrong("it answers for another commit than the one asked for");
        }
        let etag = text("x-linked-etag").or(text("etag")).map(bare_etag);
        let direct = located.answer.as_ref().map(|answer| &answer.headers);
        let sizes = [
            said.size,
            text("x-linked-size").and_then(|size| size.parse().ok()),
            direct.and_then(length),
        ];
        let size = sizes.into_iter().flatten().next();
        if sizes.into_iter().flatten().any(|other| Some(other) != size) {
            return wrong("it states two different sizes of the file");
        }
        let hashes = [said.sha256.as_deref(), etag];
        let mut hashes = hashes.into_iter().flatten().filter(|hash| is_sha256(hash));
        let sha256 = hashes.next();
        if hashes.any(|other| Some(other) != sha256) {
            return wrong("it states two different SHA-256 sums of the file");
        }
        let place = format!("{}/{}/{name}", self.id, self.commit);
        Ok(Facts {
            blob: blob_name(etag.unwrap_or_default(), &place),
            size,
            sha256: sha256.map(str::to_owned),
        })
    }

    /// Takes the lock for writing a blob, which the Python client respects as well.
    fn lock(&self, path: &Path) -> Result<File, Problem> {
        fs::create_dir_all(folder_of(path)).map_err(at(path))?;
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(at(path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => self.client.pause(Duration::from_millis(200))?,
                Err(TryLockError::Error(error)) => return Err(at(path)(error)),
            }
        }
    }

    /// Continues `partial` from its end, and checks it.
    fn receive(
        &self,
        partial: &mut Partial,
        facts: &Facts,
        located: Located,
    ) -> Result<(), Problem> {
        let there = partial.bytes()?;
        // A file that cannot be checked at the end is not joined from two parts.
        match facts.sha256.is_none() || facts.size.is_none_or(|size| there > size) {
            true => partial.restart()?,
            false => partial.read_again(|| self.client.pause(Duration::ZERO))?,
        }
        let from = partial.len;
        if facts.size != Some(from) || from == 0 {
            let mut answer = match located.answer {
                Some(answer) if from == 0 => answer,
                _ => self.client.contents(located.url, from)?,
            };
            match starts_at(&answer) {
                Some(start) if start == from => (),
                Some(0) => partial.restart()?,
                _ => {
                    partial.restart()?;
                    let reason = "it sends a part of the file that was not asked for";
                    return Err(Fault::Passing(reason.into()).into());
                }
            }
            self.progress.advance(partial.len);
            self.copy(&mut answer, partial, facts)?;
        }
        let found = partial.sha256();
        if facts.sha256.as_ref().is_some_and(|sha256| *sha256 != found) {
            partial.restart()?;
            let reason = "the contents do not have the SHA-256 that it announced".to_owned();
            // The earlier part may be the cause: the download is repeated from the start.
            return Err(match from > 0 {
                true => Fault::Passing(reason),
                false => Fault::Wrong(reason),
            }
            .into());
        }
        Ok(())
    }

    fn copy(
        &self,
        answer: &mut Answer,
        partial: &mut Partial,
        facts: &Facts,
    ) -> Result<(), Problem> {
        let rest = length(&answer.headers).map(|length| partial.len + length);
        let size = facts.size.or(rest);
        if rest.is_some() && rest != size {
            let reason = "the number of bytes differs from the size that it announced";
            return Err(Fault::Wrong(reason.into()).into());
        }
        while let Some(piece) = answer.piece()? {
            if partial.len + piece.len() as u64 > size.unwrap_or(UNSIZED) {
                partial.restart()?;
                let reason = "it sends more bytes than it announced";
                return Err(Fault::Wrong(reason.into()).into());
            }
            partial.append(&piece)?;
            self.progress.advance(piece.len() as u64);
        }
        match size {
            Some(size) if partial.len < size => {
                let reason = format!("the connection broke after {} of {size} bytes", partial.len);
                Err(Fault::Passing(reason).into())
            }
            _ => Ok(()),
        }
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Offset in the file at which an answer begins.
fn starts_at(answer: &Answer) -> Option<u64> {
    match answer.status {
        StatusCode::OK => Some(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = answer.headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
            range
                .strip_prefix("bytes ")?
                .split('-')
                .next()?
                .parse()
                .ok()
        }
        _ => None,
    }
}
