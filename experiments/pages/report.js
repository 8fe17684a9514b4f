"use strict";
for (const history of document.querySelectorAll(".history")) {
  const frames = [...history.querySelectorAll(".frame")];
  const controls = history.querySelector(".controls");
  if (!controls) continue;
  const [button, slider] = controls.children;
  const step = history.querySelector("output");
  let timer = 0;
  const show = (place) => {
    frames.forEach((frame, other) => { frame.hidden = other !== place; });
    slider.value = place;
    step.textContent = frames[place].dataset.step;
    slider.setAttribute("aria-valuetext", "step " + frames[place].dataset.step);
  };
  const play = (plays) => {
    clearInterval(timer);
    timer = plays ? setInterval(() => show((Number(slider.value) + 1) % frames.length), 200) : 0;
    button.textContent = plays ? "Pause" : "Play";
    button.setAttribute("aria-pressed", plays);
  };
  slider.addEventListener("input", () => { play(false); show(Number(slider.value)); });
  button.addEventListener("click", () => play(!timer));
  show(frames.length - 1);
  controls.hidden = false;
}
for (const item of JSON.parse(document.getElementById("curves").textContent)) Bokeh.embed.embed_item(item);
