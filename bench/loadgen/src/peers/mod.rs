//! Other servers, for comparison: their answers are checked as far as they can be, against what records may hold.

pub mod etcd;
pub mod memcached;
mod pipeline;
pub mod redis;

use std::net::TcpStream;

use crate::failure::Failure;

/// A socket without delay.
fn connect(address: &str) -> Result<TcpStream, Failure> {
    let cannot = |error| Failure::Io("cannot connect", error);
    let stream = TcpStream::connect(address).map_err(cannot)?;
    stream.set_nodelay(true).map_err(cannot)?;
    Ok(stream)
}

/// The first line of the input, without its end, and the bytes that it takes; `None` if it has not come yet.
fn split_line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = input.windows(2).position(|window| window == b"\r\n")?;
    Some((&input[..end], end + 2))
}

/// A decimal number.
fn parse_number(digits: &[u8]) -> Result<usize, Failure> {
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.trim().parse().ok());
    number.ok_or_else(|| Failure::check("the server sent something else where a number is due"))
}
