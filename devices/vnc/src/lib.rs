// SPDX-License-Identifier: MIT
//! A VNC server for one screen and one keyboard (RFC 6143, the remote framebuffer protocol 3.8).
//!
//! Always true: it listens on the loopback interface alone, because it asks for no password; whatever a client
//! sends is bounded before it is kept, and taken at a bounded rate; a client that breaks the protocol, or takes
//! nothing for a while, is disconnected and nobody else notices; what clients do is in the log until it is too
//! much. Not here: pointers, cut text, encodings other than raw; what is on the screen.
#![forbid(unsafe_code)]

mod client;
mod format;
mod frame;
mod server;

#[cfg(test)]
mod tests;

pub use frame::Frame;
pub use server::{Console, Server};
