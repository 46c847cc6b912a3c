//! Authorization by SPIFFE ID: the pure core that decides, with no I/O, no clock and no host.
