// The functions JavaScript sees. Devices, buffers and programs are known by number, so a stale or wrong handle is an
// error and never a bad pointer. Everything that touches device memory is a job on that device's executor thread; a job
// settles its promise through one thread-safe function per environment, which is referenced only while jobs are open,
// so an idle addon never keeps a process alive.
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <unordered_map>

#include "addon/cuda.h"
#include "addon/decode.h"
#include "addon/device.h"
#include "exec/files.h"
#include "exec/status.h"

namespace refl {
namespace {

using Clock = std::chrono::steady_clock;

struct Addon;

// One asynchronous call. `work` runs on the executor thread, `finish` on the JavaScript thread.
struct Job {
  explicit Job(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise::Deferred deferred;
  std::function<void()> work;
  std::function<Napi::Value(Napi::Env)> finish = [](Napi::Env env) { return env.Undefined(); };
  Napi::FunctionReference onProgress, onTap;
  std::atomic<bool> cancelled{false};
  std::string code, message;  // set when work threw
};

// What travels to the JavaScript thread: a job that ended, how far it has come, or what it handed out.
struct Event {
  std::shared_ptr<Job> job;
  enum { ended, progress, tapped } what = ended;
  double number = 0;             // the fraction done, or the number of the tap
  std::vector<std::byte> bytes;  // of the tap
};

Napi::Value rejection(Napi::Env env, const std::string& code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error.Value();
}

// Hands bytes over. Many are not copied, which would hold the event loop, unless the host wants all memory for itself.
Napi::Value toArrayBuffer(Napi::Env env, std::vector<std::byte> bytes) {
  constexpr size_t kMany = size_t{1} << 20;
  if (bytes.size() >= kMany) {
    auto* kept = new std::vector<std::byte>(std::move(bytes));
    const auto free = [](napi_env, void*, void* hint) { delete static_cast<std::vector<std::byte>*>(hint); };
    napi_value out = nullptr;
    if (napi_create_external_arraybuffer(env, kept->data(), kept->size(), free, kept, &out) == napi_ok)
      return {env, out};
    bytes = std::move(*kept);
    delete kept;
  }
  Napi::ArrayBuffer out = Napi::ArrayBuffer::New(env, bytes.size());
  if (!bytes.empty()) std::memcpy(out.Data(), bytes.data(), bytes.size());
  return out;
}

void deliver(Napi::Env env, Napi::Function, Addon* addon, Event* event);
using Events = Napi::TypedThreadSafeFunction<Addon, Event, deliver>;

struct Addon {
  explicit Addon(Napi::Env env);

  template <class T>
  static const std::shared_ptr<T>& find(const std::unordered_map<uint32_t, std::shared_ptr<T>>& all,
                                        const Napi::Value& id, const char* what) {
    const auto found = all.find(id.IsNumber() ? id.As<Napi::Number>().Uint32Value() : 0);
    if (found == all.end()) throw Error("ERR_DISPOSED", std::string("the ") + what + " was disposed");
    return found->second;
  }

  template <class T>
  Napi::Value keep(Napi::Env env, std::unordered_map<uint32_t, std::shared_ptr<T>>& all, std::shared_ptr<T> value) {
    all.emplace(++lastId, std::move(value));
    return Napi::Number::New(env, lastId);
  }

  Napi::Value start(Napi::Env env, Device& device, const std::shared_ptr<Job>& job);
  void settle(Napi::Env env, Event& event);
  void close();

  uint32_t lastId = 0;
  std::unordered_map<uint32_t, std::shared_ptr<Device>> devices;
  std::unordered_map<uint32_t, std::shared_ptr<Buffer>> buffers;
  std::unordered_map<uint32_t, std::shared_ptr<Program>> programs;
  std::unordered_map<uint32_t, std::shared_ptr<Feed>> feeds;
  std::unordered_map<uint32_t, std::shared_ptr<Job>> runs;
  uint32_t open = 0;  // jobs not yet settled
  Events events;
};

Addon::Addon(Napi::Env env) {
  events = Events::New(env, "refl", 0, 1, this);
  events.Unref(env);
  // Runs before the thread-safe function goes: when a worker is terminated in mid-run, its runs are told to stop
  // and their threads joined while everything they touch still exists.
  env.AddCleanupHook([this] { close(); });
}

void Addon::close() {
  for (auto& [id, device] : devices) device->closing = true;  // all before any is waited for
  devices.clear();
}

Napi::Value Addon::start(Napi::Env env, Device& device, const std::shared_ptr<Job>& job) {
  if (open++ == 0) events.Ref(env);
  device.executor.post([this, job, &device] {
    try {
      if (device.closing) throw Error("ERR_DISPOSED", "the device was disposed before this could begin");
      job->work();
    } catch (const Error& error) {
      job->code = error.code();
      job->message = error.what();
    } catch (const std::bad_alloc&) {
      job->code = "ERR_OUT_OF_MEMORY";
      job->message = "out of memory";
    } catch (const std::exception& error) {
      job->code = "ERR_PROGRAM";
      job->message = error.what();
    }
    job->work = nullptr;
    events.NonBlockingCall(new Event{job, Event::ended, 0, {}});
  });
  return job->deferred.Promise();
}

void Addon::settle(Napi::Env env, Event& event) {
  const Napi::HandleScope scope(env);
  Job& job = *event.job;
  if (event.what == Event::progress) {
    if (!job.onProgress.IsEmpty()) job.onProgress.Call({Napi::Number::New(env, event.number)});
    return;
  }
  if (event.what == Event::tapped) {
    if (!job.onTap.IsEmpty())
      job.onTap.Call({Napi::Number::New(env, event.number), toArrayBuffer(env, std::move(event.bytes))});
    return;
  }
  if (--open == 0) events.Unref(env);
  // Here, because the executor may drop the last reference to the job, and a JavaScript reference dies on this thread.
  job.onProgress.Reset();
  job.onTap.Reset();
  if (!job.code.empty()) {
    job.deferred.Reject(rejection(env, job.code, job.message));
    return;
  }
  try {
    job.deferred.Resolve(job.finish(env));
  } catch (const Napi::Error& error) {
    job.deferred.Reject(error.Value());
  } catch (const std::exception& error) {
    job.deferred.Reject(rejection(env, "ERR_OUT_OF_MEMORY", error.what()));
  }
}

// Called without an environment for what is still queued when that ends: then nobody waits for it.
void deliver(Napi::Env env, Napi::Function, Addon* addon, Event* event) {
  const std::unique_ptr<Event> owned(event);
  if (env != nullptr) addon->settle(env, *event);
}

Addon& addonOf(const Napi::CallbackInfo& info) { return *info.Env().GetInstanceData<Addon>(); }

// A native exception becomes a JavaScript one with its code; nothing else can leave a function of this file.
template <Napi::Value (*fn)(const Napi::CallbackInfo&, Addon&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return fn(info, addonOf(info));
  } catch (const Error& error) {
    throw Napi::Error(info.Env(), rejection(info.Env(), error.code(), error.what()));
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Napi::Error(info.Env(), rejection(info.Env(), "ERR_OUT_OF_MEMORY", "out of memory"));
  } catch (const std::exception& error) {
    throw Napi::Error(info.Env(), rejection(info.Env(), "ERR_PROGRAM", error.what()));
  }
}

// info() -> { isa }
Napi::Value describeAddon(const Napi::CallbackInfo& info, Addon&) {
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("isa", cpuIsa());
  return out;
}

// openCuda(path) -> { devices, reason, build }: opens the CUDA library
Napi::Value openCuda(const Napi::CallbackInfo& info, Addon&) {
  const ReflCuda& cuda = openCudaLibrary(info[0].ToString());
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("devices", cuda.devices);
  out.Set("reason", cuda.reason);
  out.Set("build", cuda.build);
  return out;
}

// openDevice(kind, threads, library, tf32) -> { device, opened }: a promise, and the number to close also where that
// rejects; `library` is the CUDA library's path, or empty; `tf32` is of CUDA devices alone
Napi::Value openDevice(const Napi::CallbackInfo& info, Addon& addon) {
  const Napi::Env env = info.Env();
  const std::string kind = info[0].ToString(), library = info[2].ToString();
  const int threads = info[1].ToNumber().Int32Value();
  // More than the system allows would end the process: the OpenMP runtime exits where it cannot start a thread.
  if (threads < 1 || threads > 256) throw Error("ERR_OPTION", "a device takes 1 to 256 threads");
  const auto device = std::make_shared<Device>(kind, threads, library, info[3].ToBoolean());
  auto job = std::make_shared<Job>(env);
  job->work = [&device = *device] { device.open(); };
  Napi::Object out = Napi::Object::New(env);
  out.Set("device", addon.keep(env, addon.devices, device));
  out.Set("opened", addon.start(env, *device, job));
  return out;
}

// closeDevice(device): waits for its running program's segment or other job; what is queued rejects with ERR_DISPOSED
Napi::Value closeDevice(const Napi::CallbackInfo& info, Addon& addon) {
  const auto found = addon.devices.find(info[0].ToNumber().Uint32Value());
  if (found != addon.devices.end()) {
    found->second->closing = true;
    addon.devices.erase(found);
  }
  return info.Env().Undefined();
}

// createBuffer(device, dtype, shape, frozen, dtype of packed copies?) -> buffer
Napi::Value createBuffer(const Napi::CallbackInfo& info, Addon& addon) {
  const auto device = Addon::find(addon.devices, info[0], "device");
  if (!device->isOpen) throw Error("ERR_DEVICE", "the device is not open");
  const DType dtype = decodeDType(info[1]), packed = info[4].IsUndefined() ? dtype : decodeDType(info[4]);
  return addon.keep(
      info.Env(), addon.buffers,
      std::make_shared<Buffer>(device->backend, dtype, decodeShape(info[2]), info[3].ToBoolean(), packed));
}

// writeBuffer(device, buffer, typedArray) -> Promise
Napi::Value writeBuffer(const Napi::CallbackInfo& info, Addon& addon) {
  const auto device = Addon::find(addon.devices, info[0], "device");
  const auto buffer = Addon::find(addon.buffers, info[1], "parameter");
  const ByteView values = decodeBytes(info[2]);
  auto bytes = std::make_shared<std::vector<std::byte>>(values.data, values.data + values.size);
  if (bytes->size() != buffer->bytes()) throw Error("ERR_WEIGHTS", "the values do not fill the parameter");
  auto job = std::make_shared<Job>(info.Env());
  job->work = [buffer, bytes] { buffer->write(bytes->data()); };
  return addon.start(info.Env(), *device, job);
}

// readBuffer(device, buffer) -> Promise<ArrayBuffer>
Napi::Value readBuffer(const Napi::CallbackInfo& info, Addon& addon) {
  const auto device = Addon::find(addon.devices, info[0], "device");
  const auto buffer = Addon::find(addon.buffers, info[1], "parameter");
  auto bytes = std::make_shared<std::vector<std::byte>>();
  auto job = std::make_shared<Job>(info.Env());
  job->work = [buffer, bytes] { *bytes = buffer->read(); };
  job->finish = [bytes](Napi::Env env) { return toArrayBuffer(env, std::move(*bytes)); };
  return addon.start(info.Env(), *device, job);
}

// loadBuffer(device, buffer, path, offset, fileType) -> Promise; a frozen buffer is read when it is first needed
Napi::Value loadBuffer(const Napi::CallbackInfo& info, Addon& addon) {
  const auto device = Addon::find(addon.devices, info[0], "device");
  const auto buffer = Addon::find(addon.buffers, info[1], "parameter");
  const std::string path = info[2].ToString(), type = info[4].ToString();
  const auto offset = static_cast<uint64_t>(info[3].ToNumber().Int64Value());
  auto job = std::make_shared<Job>(info.Env());
  job->work = [=] {
    buffer->load(std::make_shared<FileValues>(path, offset, type, buffer->dtype, sizeOf(buffer->shape)));
  };
  return addon.start(info.Env(), *device, job);
}

// gatherBuffer(device, buffer, slices) -> Promise; the values are read now, frozen buffer or not
Napi::Value gatherBuffer(const Napi::CallbackInfo& info, Addon& addon) {
  const auto device = Addon::find(addon.devices, info[0], "device");
  const auto buffer = Addon::find(addon.buffers, info[1], "parameter");
  auto slices = std::make_shared<std::vector<FileSlice>>(decodeSlices(info[2]));
  auto job = std::make_shared<Job>(info.Env());
  job->work = [buffer, slices] { buffer->write(gather(*slices, buffer->dtype, sizeOf(buffer->shape)).data()); };
  return addon.start(info.Env(), *device, job);
}

// compile(device, spec, buffers) -> Promise<{ program, transientBytes, persistentBytes }>
Napi::Value compile(const Napi::CallbackInfo& info, Addon& addon) {
  const auto device = Addon::find(addon.devices, info[0], "device");
  auto decl = std::make_shared<ProgramDecl>(decodeProgram(info[1].As<Napi::Object>()));
  std::vector<std::shared_ptr<Buffer>> buffers;
  const auto ids = info[2].As<Napi::Array>();
  for (uint32_t i = 0; i < ids.Length(); i++) buffers.push_back(Addon::find(addon.buffers, ids[i], "parameter"));
  auto program = std::make_shared<std::shared_ptr<Program>>();
  auto job = std::make_shared<Job>(info.Env());
  job->work = [&backend = device->backend, decl, buffers = std::move(buffers), program] {
    if (!backend) throw Error("ERR_DEVICE", "the device is not open");
    *program = std::make_shared<Program>(std::move(*decl), buffers, backend);
  };
  job->finish = [&addon, program](Napi::Env env) -> Napi::Value {
    Napi::Object out = Napi::Object::New(env);
    out.Set("transientBytes", static_cast<double>((*program)->transientBytes()));
    out.Set("persistentBytes", static_cast<double>((*program)->persistentBytes()));
    out.Set("program", addon.keep(env, addon.programs, *program));
    return out;
  };
  return addon.start(info.Env(), *device, job);
}

// Reports progress at most every 50 ms, so that short segments do not flood the event loop.
Between between(Addon& addon, const Device& device, const std::shared_ptr<Job>& job, bool wantsProgress) {
  auto last = std::make_shared<Clock::time_point>(Clock::now());
  // Weak, because the job owns this function.
  return [&addon, &device, weak = std::weak_ptr<Job>(job), wantsProgress, last](double fraction) {
    const auto owner = weak.lock();
    if (device.closing) throw Error("ERR_DISPOSED", "the device was disposed during the run");
    if (owner->cancelled) return false;
    if (wantsProgress && Clock::now() - *last > std::chrono::milliseconds(50)) {
      *last = Clock::now();
      addon.events.NonBlockingCall(new Event{owner, Event::progress, fraction, {}});
    }
    return true;
  };
}

// Hands taps over as they come: there is one event for each tap of the program.
Tapped tapped(Addon& addon, const std::shared_ptr<Job>& job) {
  return [&addon, weak = std::weak_ptr<Job>(job)](size_t tap, std::vector<std::byte> bytes) {
    addon.events.NonBlockingCall(new Event{weak.lock(), Event::tapped, static_cast<double>(tap), std::move(bytes)});
  };
}

// createFeed(bytes) -> feed: what fillFeed puts together, for one run to come
Napi::Value createFeed(const Napi::CallbackInfo& info, Addon& addon) {
  return addon.keep(info.Env(), addon.feeds, std::make_shared<Feed>(decodeSize(info[0])));
}

// fillFeed(feed, typedArray): copies what is next of it
Napi::Value fillFeed(const Napi::CallbackInfo& info, Addon& addon) {
  const auto feed = Addon::find(addon.feeds, info[0], "feed");
  const ByteView part = decodeBytes(info[1]);
  feed->append(part.data, part.size);
  return info.Env().Undefined();
}

// A feed as a run is given it: a typed array, copied here and now, or the number of one that fillFeed filled, which the
// run takes.
std::shared_ptr<const Feed> feedOf(const Napi::Value& value, Addon& addon) {
  if (value.IsNumber()) {
    const std::shared_ptr<Feed> feed = Addon::find(addon.feeds, value, "feed");
    addon.feeds.erase(value.As<Napi::Number>().Uint32Value());
    return feed;
  }
  const ByteView bytes = decodeBytes(value);
  const auto feed = std::make_shared<Feed>(bytes.size);
  feed->append(bytes.data, bytes.size);
  return feed;
}

// run(device, program, feeds, onProgress?, onTap?) -> { run, promise }; feeds stand in the program's order
Napi::Value run(const Napi::CallbackInfo& info, Addon& addon) {
  const Napi::Env env = info.Env();
  const auto device = Addon::find(addon.devices, info[0], "device");
  const auto program = Addon::find(addon.programs, info[1], "program");
  auto feeds = std::make_shared<std::vector<std::shared_ptr<const Feed>>>();
  const auto given = info[2].As<Napi::Array>();
  if (given.Length() != program->feeds().size()) throw Error("ERR_FEED", "the wrong number of feeds");
  for (uint32_t i = 0; i < given.Length(); i++) feeds->push_back(feedOf(given[i], addon));
  auto outputs = std::make_shared<std::vector<std::vector<std::byte>>>();
  auto job = std::make_shared<Job>(env);
  if (info[3].IsFunction()) job->onProgress = Napi::Persistent(info[3].As<Napi::Function>());
  if (info[4].IsFunction()) job->onTap = Napi::Persistent(info[4].As<Napi::Function>());
  const uint32_t id = ++addon.lastId;
  job->work = [program, feeds, outputs, report = between(addon, *device, job, info[3].IsFunction()),
               taps = info[4].IsFunction() ? tapped(addon, job) : Tapped()] {
    program->run(std::move(*feeds), *outputs, report, taps);
  };
  job->finish = [outputs](Napi::Env e) -> Napi::Value {
    Napi::Array out = Napi::Array::New(e, outputs->size());
    for (uint32_t i = 0; i < outputs->size(); i++) out[i] = toArrayBuffer(e, std::move((*outputs)[i]));
    return out;
  };
  addon.runs.emplace(id, job);
  Napi::Object out = Napi::Object::New(env);
  out.Set("run", Napi::Number::New(env, id));
  out.Set("promise", addon.start(env, *device, job));
  return out;
}

// cancel(run): the run stops at its next segment boundary and rejects with ERR_ABORTED
Napi::Value cancel(const Napi::CallbackInfo& info, Addon& addon) {
  const auto found = addon.runs.find(info[0].ToNumber().Uint32Value());
  if (found != addon.runs.end()) found->second->cancelled = true;
  return info.Env().Undefined();
}

// release(id): forgets a buffer, a program, a feed or a settled run; memory goes when the last job using it has ended
Napi::Value release(const Napi::CallbackInfo& info, Addon& addon) {
  const uint32_t id = info[0].ToNumber().Uint32Value();
  addon.buffers.erase(id);
  addon.programs.erase(id);
  addon.feeds.erase(id);
  addon.runs.erase(id);
  return info.Env().Undefined();
}

// Node unloads an addon with the last worker that uses it, and the OpenMP runtime with it, whose threads may still be
// on their way out: both stay in memory.
void stayLoaded() {
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&stayLoaded), &self))
    dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  stayLoaded();
  env.SetInstanceData(new Addon(env));
  exports.Set("info", Napi::Function::New<guarded<describeAddon>>(env));
  exports.Set("openCuda", Napi::Function::New<guarded<openCuda>>(env));
  exports.Set("openDevice", Napi::Function::New<guarded<openDevice>>(env));
  exports.Set("closeDevice", Napi::Function::New<guarded<closeDevice>>(env));
  exports.Set("createBuffer", Napi::Function::New<guarded<createBuffer>>(env));
  exports.Set("writeBuffer", Napi::Function::New<guarded<writeBuffer>>(env));
  exports.Set("readBuffer", Napi::Function::New<guarded<readBuffer>>(env));
  exports.Set("gatherBuffer", Napi::Function::New<guarded<gatherBuffer>>(env));
  exports.Set("loadBuffer", Napi::Function::New<guarded<loadBuffer>>(env));
  exports.Set("compile", Napi::Function::New<guarded<compile>>(env));
  exports.Set("createFeed", Napi::Function::New<guarded<createFeed>>(env));
  exports.Set("fillFeed", Napi::Function::New<guarded<fillFeed>>(env));
  exports.Set("run", Napi::Function::New<guarded<run>>(env));
  exports.Set("cancel", Napi::Function::New<guarded<cancel>>(env));
  exports.Set("release", Napi::Function::New<guarded<release>>(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(refl, init)

}  // namespace refl
