"""sntp.py ADDRESS: answers NTP requests with this machine's clock (Talos waits for a time server before it starts anything)."""
import socket, struct, sys, time

def stamp(t):
    return struct.pack("!II", int(t) + 2208988800, int((t % 1) * 2**32))  # NTP counts from 1900

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 123))
while True:
    request, peer = s.recvfrom(512)
    now = time.time()
    head = struct.pack("!BBbb", 0x24, 1, 4, -20) + struct.pack("!II", 0, 0) + b"LOCL"
    s.sendto(head + stamp(now) + request[40:48] + stamp(now) + stamp(time.time()), peer)
