//! Requests to the hub: they protect the token, limit every wait, and end on request.

use super::{Environment, replies::plain};
use std::{
    io::Read,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};
use tightrope_train::StopFlag;
use ureq::http::{HeaderMap, StatusCode, header};
use url::Url;

const CONNECT: Duration = Duration::from_secs(10);
/// Interval at which a wait checks whether it should end.
const LOOK: Duration = Duration::from_millis(50);
/// A read that brings fewer bytes than this in its time limit fails.
const LEAST: u64 = 1024;
const PIECE: usize = 1 << 18;
const REDIRECTS: usize = 8;

/// Reason why a request failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The user asked to stop.
    Stopped,
    /// A fault of the network or the server that may be temporary.
    Passing(String),
    /// The server refused.
    Status(StatusCode, HeaderMap),
    /// The server violated the protocol.
    Wrong(String),
}

impl Fault {
    /// Adds the name of the file.
    pub(super) fn about(self, name: &str) -> Self {
        match self {
            Fault::Passing(reason) => Fault::Passing(format!("{name}: {reason}")),
            Fault::Wrong(reason) => Fault::Wrong(format!("{name}: {reason}")),
            other => other,
        }
    }
}

/// Talks to one hub.
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: Url,
    /// Value of the authorization header, which only the hub's own host gets.
    authorization: Option<header::HeaderValue>,
    idle: Duration,
    stop: StopFlag,
}

/// Headers and body of an answer; dropping it ends the transfer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pieces: Receiver<Message>,
    stop: StopFlag,
    idle: Duration,
    since: Instant,
    bytes: u64,
}

/// Place of a file: the hub's own answer, and the address of the contents.
pub(super) struct Located {
    pub headers: HeaderMap,
    pub url: Url,
    /// The contents, if the hub sends them itself.
    pub answer: Option<Answer>,
}

enum Message {
    Head(StatusCode, HeaderMap),
    Piece(Vec<u8>),
    End,
    Fault(Fault),
}

impl Client {
    pub(super) fn new(environment: &Environment, stop: StopFlag) -> Result<Self, String> {
        let idle = environment.patience;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, where it is known who may see the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(idle))
            .timeout_per_read(Some(idle))
            .timeout_per_write(Some(idle))
            .user_agent(concat!("tightrope/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build()
            .new_agent();
        Ok(Self {
            agent,
            endpoint: environment.url()?,
            authorization: environment.authorization()?,
            idle,
            stop,
        })
    }

    /// An address below the hub's, from escaped parts.
    pub(super) fn address<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Url, Fault> {
        let mut url = self.endpoint.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(parts);
            }
            Err(()) => return Err(Fault::Wrong("HF_ENDPOINT has no path".into())),
        }
        Ok(url)
    }

    /// Follows the hub's own redirects to the answer, or to the address of another host.
    pub(super) fn locate(&self, url: Url) -> Result<Located, Fault> {
        let (mut url, mut headers) = (url, HeaderMap::new());
        for _ in 0..REDIRECTS {
            if url.origin() != self.endpoint.origin() {
                return Ok(Located {
                    headers,
                    url,
                    answer: None,
                });
            }
            let answer = self.get(&url, 0)?;
            headers.extend(answer.headers.clone());
            match redirect(&url, &answer)? {
                Some(next) => url = next,
                None => {
                    return Ok(Located {
                        headers,
                        url,
                        answer: Some(answer),
                    });
                }
            }
        }
        Err(Fault::Wrong("it redirects without end".into()))
    }

    /// Requests the contents at an address from a byte on, and follows all redirects.
    pub(super) fn contents(&self, url: Url, from: u64) -> Result<Answer, Fault> {
        let mut url = url;
        for _ in 0..REDIRECTS {
            let answer = self.get(&url, from)?;
            match redirect(&url, &answer)? {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        Err(Fault::Wrong("it redirects without end".into()))
    }

    fn get(&self, url: &Url, from: u64) -> Result<Answer, Fault> {
        let mut request = self.agent.get(url.as_str());
        if let Some(value) = &self.authorization
            && url.origin() == self.endpoint.origin()
        {
            request = request.header(header::AUTHORIZATION, value);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let (sender, pieces) = mpsc::sync_channel(4);
        // The request has a separate thread, which ends with its socket, so that the waiting caller
        // can be stopped.
        thread::Builder::new()
            .name("hub".into())
            .spawn(move || transfer(request.call(), &sender))
            .map_err(|error| Fault::Passing(error.to_string()))?;
        let mut answer = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            pieces,
            stop: self.stop.clone(),
            idle: self.idle,
            since: Instant::now(),
            bytes: 0,
        };
        match answer.message()? {
            Message::Head(status, headers) => (answer.status, answer.headers) = (status, headers),
            _ => return Err(Fault::Passing("the answer has no head".into())),
        }
        let fine = answer.status.is_success() || answer.status.is_redirection();
        // The caller's range is wrong, not its request.
        let beyond = answer.status == StatusCode::RANGE_NOT_SATISFIABLE && from > 0;
        match fine || beyond {
            true => Ok(answer),
            false if answer.status.is_server_error() => {
                let reason = format!("the server answers {}", answer.status.as_u16());
                Err(Fault::Passing(reason))
            }
            false => Err(Fault::Status(answer.status, answer.headers)),
        }
    }

    /// Waits, unless a stop is requested.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Fault> {
        let until = Instant::now() + time;
        loop {
            if self.stop.is_requested() {
                return Err(Fault::Stopped);
            }
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => thread::sleep(left.min(LOOK)),
            }
        }
    }
}

impl Answer {
    /// Next piece of the body; `None` at its end.
    pub(super) fn piece(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        match self.message()? {
            Message::Piece(piece) => {
                self.bytes += piece.len() as u64;
                if self.since.elapsed() > self.idle {
                    if self.bytes < LEAST {
                        return Err(Fault::Passing("it hardly sends anything".into()));
                    }
                    (self.since, self.bytes) = (Instant::now(), 0);
                }
                Ok(Some(piece))
            }
            _ => Ok(None),
        }
    }

    /// Reads the whole body, if it is not longer than `limit`.
    pub(super) fn whole(mut self, limit: usize) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece()? {
            body.extend(piece);
            if body.len() > limit {
                return Err(Fault::Wrong(format!("it answers more than {limit} bytes")));
            }
        }
        Ok(body)
    }

    fn message(&self) -> Result<Message, Fault> {
        loop {
            if self.stop.is_requested() {
                return Err(Fault::Stopped);
            }
            match self.pieces.recv_timeout(LOOK) {
                Ok(Message::Fault(fault)) => return Err(fault),
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Fault::Passing("the connection broke".into()));
                }
            }
        }
    }
}

/// Forwards data from the network until the end, or until nobody listens.
fn transfer(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    sender: &SyncSender<Message>,
) {
    let response = match answer {
        Ok(response) => response,
        Err(error) => {
            let _ = sender.send(Message::Fault(fault(error)));
            return;
        }
    };
    let (head, body) = response.into_parts();
    if sender
        .send(Message::Head(head.status, head.headers))
        .is_err()
    {
        return;
    }
    let mut reader = body.into_reader();
    loop {
        let mut piece = vec![0; PIECE];
        let message = match reader.read(&mut piece) {
            Ok(0) => Message::End,
            Ok(read) => {
                piece.truncate(read);
                Message::Piece(piece)
            }
            Err(error) => Message::Fault(fault(error.into())),
        };
        let last = !matches!(message, Message::Piece(_));
        if sender.send(message).is_err() || last {
            return;
        }
    }
}

/// Describes the error without the address, which may hold a signature or a password.
fn fault(error: ureq::Error) -> Fault {
    Fault::Passing(match error {
        ureq::Error::Io(error) => plain(&error.to_string()),
        ureq::Error::HostNotFound => "there is no such host".into(),
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
            format!("no connection in {} s", CONNECT.as_secs())
        }
        ureq::Error::Timeout(_) => "it does not answer in time".into(),
        ureq::Error::Rustls(error) => plain(&error.to_string()),
        ureq::Error::Tls(reason) => reason.into(),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            "what it answers is not HTTP".into()
        }
        ureq::Error::InvalidProxyUrl | ureq::Error::ConnectProxyFailed(_) => {
            "the proxy of the environment does not let the request through".into()
        }
        _ => "the request failed".into(),
    })
}

/// Target of a redirect, if the answer is one.
fn redirect(from: &Url, answer: &Answer) -> Result<Option<Url>, Fault> {
    if !answer.status.is_redirection() {
        return Ok(None);
    }
    let wrong = |reason: &str| Fault::Wrong(reason.to_owned());
    let location = answer.headers.get(header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| wrong("it redirects to nowhere"))?;
    let url = from.join(location);
    let url = url.map_err(|_| wrong("it redirects to an invalid address"))?;
    let secure = url.scheme() == "https" || url.scheme() == "http" && from.scheme() == "http";
    match secure && url.username().is_empty() && url.password().is_none() {
        true => Ok(Some(url)),
        false => Err(wrong("it redirects to an address that is not safe")),
    }
}
