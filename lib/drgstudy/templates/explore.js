// Each chart as wide as there is room for, side by side where two fit.
for (const data of document.querySelectorAll("script[type='application/json']")) {
  const spec = JSON.parse(data.textContent), place = data.previousElementSibling;
  spec.columns = place.clientWidth < 800 ? 1 : 2;
  for (const chart of spec.concat) chart.width = place.clientWidth / spec.columns - 70;
  const options = { mode: "vega-lite", ast: true, actions: false, renderer: "svg", bind: place.previousElementSibling };
  vegaEmbed(place, spec, options).catch(console.error);
}
