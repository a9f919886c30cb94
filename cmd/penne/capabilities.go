package main

// capabilities is what --print-capabilities prints.
const capabilities = "{\n  \"type\": \"net\"\n}\n"
