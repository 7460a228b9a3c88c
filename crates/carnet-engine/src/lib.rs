//! Carnet's engine: loads the kernel program, attaches it to cgroups, gives it its policy and reads its events.
//!
//! ```text
//! Hierarchy::find() -> Cgroup::create() -> Engine::load() -> apply(policy) -> attach_*() -> events()
//! ```
//!
//! The engine is the only part of Carnet that opens BPF objects and the only one that needs privileges
//! (`CAP_BPF`, `CAP_NET_ADMIN`, `CAP_PERFMON`, and write access to the cgroup hierarchy). With `CAP_SYS_ADMIN` it also
//! finds the other engines of the host, without which two break each other: see [`Engine::knows_other_engines`].
//! The programs stay attached while somebody holds the links' descriptors ([`Engine::link_fds`]), or once they are pinned:
//! [`Engine::pin`] lets them outlive the process, and [`Engine::adopt`] has another process go on with them.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod pin;
pub mod probe;

mod apply;
mod attach;
mod error;
mod events;
mod listeners;
mod load;
mod marks;
mod mounts;
mod netlink;
mod netns;
mod routes;

pub use apply::DEEPEST_OWNER;
#[doc(hidden)]
pub use apply::{PRIVATE_TWINS, Twin};
pub use attach::Attachment;
pub use error::{Error, ErrorKind};
pub use events::EventReader;
pub use listeners::{Listener, listeners, listeners_on, waiting_on};
#[doc(hidden)]
pub use load::FLIGHT_COUNTS;
pub use load::{Engine, Options};
pub use netns::netns_cookie;
pub use routes::{RouteNotice, RouteWatch, Routes};
