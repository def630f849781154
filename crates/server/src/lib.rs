//! The authority: commit pipeline, hub, sessions, HTTP and WebSocket.
