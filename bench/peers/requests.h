// What the C++ peers share: one request of words a line on stdin, one JSON answer a line on stdout.
#pragma once

#include <chrono>
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>

using Words = std::istringstream;

template <class T>
T next(Words& words) {
  T value;
  if (!(words >> value)) throw std::invalid_argument("a request ended early");
  return value;
}

// Answers every line by what `answer` makes of it; an exception becomes {"error": ...}.
template <class F>
int serve(F answer) {
  for (std::string line; std::getline(std::cin, line);) {
    Words words(line);
    std::string reply;
    try {
      reply = answer(words);
    } catch (const std::exception& error) {
      reply = std::string("{\"error\":\"") + error.what() + "\"}";
    }
    std::cout << reply << std::endl;
  }
  return 0;
}

template <class F>
double secondsOf(F run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Number `i` of tensor `tensor`, from -0.5 to 0.5: lib/bench/values.ts has the same, so results can be compared.
inline float valueAt(uint32_t i, uint32_t tensor) {
  uint32_t h = (i + tensor * 0x632BE5ABu) * 0x9E3779B1u;
  h = (h ^ (h >> 15)) * 0x85EBCA77u;
  h ^= h >> 13;
  return static_cast<float>(h >> 8) / 16777216.0f - 0.5f;
}
