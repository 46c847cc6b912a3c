//! A gRPC server for Envoy's filter ext_authz that allows every request, frame by frame.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Result, ensure};
use spiffe_authz_integration::http2::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, PREFACE, SETTINGS, STATUS_200, WINDOW_UPDATE, frame, literal,
};

/// The length-prefixed message of gRPC: not compressed, and empty. An empty CheckResponse has the status OK.
const ALLOWED: [u8; 5] = [0; 5];

/// Starts the server, which runs until the process ends. Returns its address.
pub(crate) fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // An error is the end of the connection. A request that stays without a response fails the benchmark.
            thread::spawn(|| serve(stream));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    ensure!(preface == PREFACE, "expected HTTP/2");
    let mut frames = Frames::on(Box::new(stream));
    frames.send(&frame(SETTINGS, 0, 0, &[]))?;
    let headers = [vec![STATUS_200], literal("content-type", "application/grpc")].concat();
    let trailers = literal("grpc-status", "0");
    loop {
        let Frame { kind, flags, stream, payload } = frames.read()?;
        if kind != DATA {
            continue;
        }
        let mut answer = Vec::new();
        if !payload.is_empty() {
            // RFC 9113 section 6.9: without this frame, the client stops after 64 kB.
            answer.extend(frame(WINDOW_UPDATE, 0, 0, &u32::try_from(payload.len())?.to_be_bytes()));
        }
        if flags & END_STREAM != 0 {
            answer.extend(frame(HEADERS, END_HEADERS, stream, &headers));
            answer.extend(frame(DATA, 0, stream, &ALLOWED));
            answer.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers));
        }
        frames.send(&answer)?;
    }
}
