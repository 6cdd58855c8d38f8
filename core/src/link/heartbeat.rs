//! Ping after 25 s without inbound, 10 s to answer, counted from the moment the ping left.
