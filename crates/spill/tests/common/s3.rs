//! A real S3 server in a process of its own, and a proxy that breaks what goes through it.
#![allow(unreachable_pub)]
#![allow(clippy::print_stdout)] // why a test was skipped
#![allow(clippy::case_sensitive_file_extension_comparisons)] // object names have no other case

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heliostat_spill::Options;

/// What no log may show.
pub const KEY_ID: &str = "AKIAVERYSECRETKEYID7";
pub const SECRET: &str = "verysecretverysecretverysecretverysecret";

/// moto's server with one bucket, `bucket`.
pub struct Server {
    process: Child,
    pub address: SocketAddr,
}

impl Server {
    /// None, with a message, where moto is not installed; but in CI it must be.
    pub fn start() -> Option<Self> {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci/moto/bin/moto_server");
        let program = if installed.exists() { installed } else { "moto_server".into() };
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                assert!(!crate::common::in_ci(), "{}: {error}", program.display());
                println!("skipped: no moto_server ({error}); `pip install 'moto[server]'` brings it");
                return None;
            }
        };
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let address =
            lines.find_map(|line| line.split_once("Running on http://").map(|(_, rest)| rest.trim().to_owned()));
        let address = address.expect("moto says where it listens").parse().unwrap();
        // Nobody may block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { process, address };
        let (status, text) = server.request("PUT", "/bucket", &[]);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&text));
        Some(server)
    }

    /// Status and body.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        // moto does not verify signatures, but tells services apart by them.
        let sign = "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=s";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: {sign}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let answer = exchange(self.address, &[head.as_bytes(), body].concat());
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer[head_length(&answer).unwrap()..].to_vec())
    }

    fn names(&self, path: &str) -> Vec<String> {
        let text = String::from_utf8(self.request("GET", path, &[]).1).unwrap();
        let mut names: Vec<String> = text
            .split("<Key>")
            .skip(1)
            .map(|part| part.split("</Key>").next().unwrap().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        names
    }

    /// All objects of the bucket.
    pub fn objects(&self) -> Vec<String> {
        self.names("/bucket?list-type=2")
    }

    /// All segments.
    pub fn segments(&self) -> Vec<String> {
        self.objects().into_iter().filter(|name| name.ends_with(".seg")).collect()
    }

    /// The objects of uploads that are neither complete nor aborted.
    pub fn uploads(&self) -> Vec<String> {
        self.names("/bucket?uploads")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn options(address: SocketAddr) -> Options {
    let endpoint = format!("http://{address}");
    let pairs = [
        ("endpoint", endpoint.as_str()),
        ("region", "us-east-1"),
        ("access_key_id", KEY_ID),
        ("secret_access_key", SECRET),
        ("allow_http", "true"),
    ];
    pairs.into_iter().collect()
}

/// What a proxy does to a request or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Answers itself.
    Status(u16),
    /// Does not answer.
    Stall,
    /// Sends half of the body, then nothing.
    StallInBody,
    /// Resets the connection after half of the body.
    Reset,
    /// Closes it in order after half of the body.
    Cut,
    /// Sends half of the body as if that were all.
    Short,
    /// Resets the connection when half of the request came.
    ResetRequest,
    /// Lets the request through, and resets the connection instead of answering.
    LoseAnswer,
}

type Choice = dyn Fn(&str, usize) -> Fault + Send + Sync;

/// Between client and server. Each connection serves one request.
pub struct Proxy {
    pub address: SocketAddr,
    choice: Arc<Mutex<Arc<Choice>>>,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `choice` gets the request line and how many requests there were before.
    pub fn start(server: SocketAddr, choice: impl Fn(&str, usize) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let choice: Arc<Mutex<Arc<Choice>>> = Arc::new(Mutex::new(Arc::new(choice)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let proxy = Self { address, choice: Arc::clone(&choice), requests: Arc::clone(&requests) };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (choice, requests) = (Arc::clone(&choice), Arc::clone(&requests));
                // A client that goes away is none of the proxy's business.
                let Ok(client) = client else { continue };
                std::thread::spawn(move || drop(serve(client, server, &choice, &requests)));
            }
        });
        proxy
    }

    pub fn set(&self, choice: impl Fn(&str, usize) -> Fault + Send + Sync + 'static) {
        *self.choice.lock().unwrap() = Arc::new(choice);
    }
}

fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    choice: &Mutex<Arc<Choice>>,
    requests: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let head = loop {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..count]);
        if let Some(head) = head_length(&request) {
            break head;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    let before = {
        let mut requests = requests.lock().unwrap();
        requests.push(line.clone());
        requests.len() - 1
    };
    let choice = Arc::clone(&choice.lock().unwrap());
    let fault = choice(&line, before);
    let length = header(&text, "content-length").map_or(0, |length| length.parse().unwrap());
    let wanted = head + if fault == Fault::ResetRequest { length / 2 } else { length };
    while request.len() < wanted {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..count]);
    }
    match fault {
        Fault::ResetRequest => return reset(&client),
        Fault::Stall => return wait_for_end(&mut client),
        Fault::Status(status) => {
            let body = format!("<Error><Code>Injected</Code><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId></Error>");
            let length = body.len();
            write!(
                client,
                "HTTP/1.1 {status} Injected\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            )?;
            return client.shutdown(Shutdown::Write);
        }
        _ => {}
    }
    let once = text.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let answer = exchange(server, &[once.as_bytes(), &request[head..]].concat());
    let head = head_length(&answer).unwrap_or(answer.len());
    let half = head + (answer.len() - head) / 2;
    match fault {
        Fault::LoseAnswer => reset(&client),
        Fault::Reset | Fault::Cut | Fault::StallInBody if answer.len() - head > 1 => {
            client.write_all(&answer[..half])?;
            match fault {
                Fault::Reset => reset(&client),
                Fault::Cut => client.shutdown(Shutdown::Both),
                _ => wait_for_end(&mut client),
            }
        }
        Fault::Short if answer.len() - head > 1 => {
            let text = String::from_utf8_lossy(&answer[..head]).into_owned();
            let lines = text.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
            let mut lines: Vec<_> = lines.map(str::to_owned).collect();
            lines.insert(1, format!("content-length: {}", half - head));
            client.write_all(lines.join("\r\n").as_bytes())?;
            client.write_all(&answer[head..half])?;
            client.shutdown(Shutdown::Write)
        }
        _ => {
            client.write_all(&answer)?;
            client.shutdown(Shutdown::Write)
        }
    }
}

/// Closes with a reset instead of in order.
fn reset(stream: &TcpStream) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Ok(())
}

/// Says nothing until the other side has had enough.
fn wait_for_end(stream: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink())?;
    Ok(())
}

/// One request that closes its connection, and all of its answer.
fn exchange(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
