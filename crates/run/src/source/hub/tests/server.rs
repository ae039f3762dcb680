//! The server of the tests: a hub that answers as configured, and records its requests.

use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A server on this machine.
pub(super) struct Server {
    pub address: String,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request by `answer`, which gets the path and the lines of the head.
    pub(super) fn new(answer: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        Self { address, requests }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>, answer: &dyn Fn(&str, &str) -> Vec<u8>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut request, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
        request += &std::mem::take(&mut line).to_lowercase();
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().unwrap().push(request.clone());
    let _ = stream.write_all(&answer(&path, &request));
}

/// Answers of an honest hub, with changes.
#[derive(Clone)]
pub(super) struct Answers {
    pub files: BTreeMap<&'static str, Vec<u8>>,
    pub commit: String,
    /// Entity tag that replaces the hash.
    pub etag: Option<String>,
    /// Additional header lines of each file's answer.
    pub head: String,
}

impl Answers {
    pub(super) fn new(files: &[(&'static str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(n, t)| (*n, t.as_bytes().to_vec()))
                .collect(),
            commit: COMMIT.into(),
            etag: None,
            head: String::new(),
        }
    }

    pub(super) fn model() -> Self {
        Self::new(&[
            ("config.json", "{}"),
            ("README.md", "no"),
            ("onnx/model.safetensors", "no"),
            ("model.safetensors", "weights"),
            ("tokenizer.json", "{\"a\":1}"),
        ])
    }

    pub(super) fn answer(&self, path: &str, request: &str) -> Vec<u8> {
        if path.starts_with("/api/models/owner/name/revision/main") {
            let names: Vec<_> = self
                .files
                .keys()
                .map(|n| serde_json::json!({"rfilename": n}))
                .collect();
            let list = serde_json::json!({"siblings": names, "sha": self.commit});
            return response("200 OK", "", list.to_string().as_bytes());
        }
        let name = path.strip_prefix(&format!("/owner/name/resolve/{COMMIT}/"));
        let Some(body) = name.and_then(|name| self.files.get(name)) else {
            return response("404 Not Found", "", b"");
        };
        let etag = self.etag.clone().unwrap_or_else(|| sha256(body));
        let mut head = format!(
            "ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n{}",
            self.head
        );
        let from = request.split("range: bytes=").nth(1);
        let Some(from) = from.and_then(|range| range.split('-').next()?.parse::<usize>().ok())
        else {
            return response("200 OK", &head, body);
        };
        head += &format!(
            "Content-Range: bytes {from}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        );
        response("206 Partial Content", &head, &body[from..])
    }

    pub(super) fn serve(self) -> Server {
        Server::new(move |path, request| self.answer(path, request))
    }
}

pub(super) fn sha256(body: &[u8]) -> String {
    tightrope_formats::files::hexadecimal(&Sha256::digest(body))
}

pub(super) fn response(status: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n");
    [head.as_bytes(), body].concat()
}
